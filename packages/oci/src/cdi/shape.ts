/** Reads a document that may be anything, and says by its path what is not as it should be. */
export class Shape {
  readonly #value: unknown;
  readonly #path: string;

  constructor(value: unknown, path = '') {
    this.#value = value;
    this.#path = path;
  }

  fail(what: string): never {
    throw new Error(this.#path === '' ? what : `${this.#path}: ${what}`);
  }

  /** The members of an object. @throws Error for other types, and for members not named in `known` */
  object(known: readonly string[]): Record<string, Shape> {
    const value = this.#value;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return this.fail('must be an object');
    const members: Record<string, Shape> = {};
    for (const [name, member] of Object.entries(value)) {
      if (!known.includes(name)) return this.fail(`unknown field ${JSON.stringify(name)}`);
      // Go's encoders write null for what is not there.
      if (member !== null && member !== undefined) members[name] = new Shape(member, this.#below(name));
    }
    return members;
  }

  /** The elements of a list. */
  list(): Shape[] {
    if (!Array.isArray(this.#value)) return this.fail('must be a list');
    return this.#value.map((element, index) => new Shape(element, `${this.#path}[${index}]`));
  }

  /** The members of an object with names of the document's choice. */
  map<T>(read: (value: Shape) => T): Record<string, T> {
    const value = this.#value;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return this.fail('must be an object');
    return Object.fromEntries(
      Object.entries(value).map(([name, member]) => [name, read(new Shape(member, this.#below(name)))]),
    );
  }

  /** A number stands for its digits: in YAML names of devices are often written so. */
  string(): string {
    const value = this.#value;
    if (typeof value === 'number' || typeof value === 'boolean') return String(value);
    return typeof value === 'string' ? value : this.fail('must be a string');
  }

  /** A string that is not empty. */
  text(): string {
    return this.string() || this.fail('must not be empty');
  }

  boolean(): boolean {
    return typeof this.#value === 'boolean' ? this.#value : this.fail('must be true or false');
  }

  /** A whole number that is not negative, nor more than the largest. */
  count(largest = Number.MAX_SAFE_INTEGER): number {
    const value = this.#value;
    if (typeof value !== 'number' || !Number.isSafeInteger(value)) return this.fail('must be a whole number');
    if (value > largest) return this.fail(`${value} is more than ${largest}`);
    return value >= 0 ? value : this.fail(`${value} must not be negative`);
  }

  #below(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`;
  }
}
