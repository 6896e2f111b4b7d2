import { notFound, unknown } from '@gantry/api';

/** Things by id, found by any beginning of it that is of one thing only, as `crictl` lets people write them. */
export class IdMap<T> {
  readonly #kind: string;
  readonly #items = new Map<string, T>();

  /** @param kind what they are, for errors: `sandbox`, `container` */
  constructor(kind: string) {
    this.#kind = kind;
  }

  set(id: string, item: T): void {
    this.#items.set(id, item);
  }

  delete(id: string): void {
    this.#items.delete(id);
  }

  /** @throws NotFound, or Unknown if several begin so */
  get(prefix: string): T {
    const item = this.find(prefix);
    if (item === undefined) throw notFound(`an error occurred when try to find ${this.#kind} "${prefix}": not found`);
    return item;
  }

  /** @throws Unknown if several begin so */
  find(prefix: string): T | undefined {
    const exact = this.#items.get(prefix);
    if (exact !== undefined || prefix === '') return exact;
    let found: T | undefined;
    for (const [id, item] of this.#items) {
      if (!id.startsWith(prefix)) continue;
      if (found !== undefined) throw unknown(`multiple IDs found with provided prefix: ${prefix}`);
      found = item;
    }
    return found;
  }

  values(): Iterable<T> {
    return this.#items.values();
  }

  list(): T[] {
    return [...this.#items.values()];
  }
}
