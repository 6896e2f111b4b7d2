import { invalidArgument } from '@gantry/api';
import type { FieldLookup, Filter } from './filter.ts';

/**
 * containerd's filters. One filter is selectors joined by commas, all of which must match; a list of filters matches if any
 * does. A selector is a field path (`labels."a.b"`), alone for presence, or with `==`, `!=`, `~=` and a value. Values and
 * path parts may be quoted with `"`; a regular expression may also stand between `/` or `|`.
 */
export function parseFilters(filters: readonly string[]): Filter {
  if (filters.length === 0) return { matches: () => true };
  const parsed = filters.map((filter) => new Parser(filter).selectors());
  return {
    matches: (lookup) => parsed.some((selectors) => selectors.every((selector) => selector(lookup))),
  };
}

type Selector = (lookup: FieldLookup) => boolean;

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  selectors(): Selector[] {
    const selectors: Selector[] = [];
    if (this.#text.trim() === '') return selectors;
    for (;;) {
      selectors.push(this.#selector());
      this.#space();
      if (this.#at >= this.#text.length) return selectors;
      if (this.#text[this.#at] !== ',') throw this.#error(`expected separator or end of filter`);
      this.#at++;
    }
  }

  #selector(): Selector {
    const path = this.#path();
    const operator = this.#operator();
    if (operator === undefined) return (lookup) => lookup(path) !== undefined;
    const value = this.#value(operator === '~=');
    switch (operator) {
      case '==':
        return (lookup) => lookup(path) === value;
      case '!=':
        return (lookup) => (lookup(path) ?? '') !== value;
      default: {
        const expression = this.#expression(value);
        return (lookup) => expression.test(lookup(path) ?? '');
      }
    }
  }

  /** White space may stand between any two words. */
  #space(): void {
    while (/\s/.test(this.#text[this.#at] ?? '')) this.#at++;
  }

  #path(): string[] {
    const path = [this.#field()];
    this.#space();
    while (this.#text[this.#at] === '.') {
      this.#at++;
      path.push(this.#field());
      this.#space();
    }
    return path;
  }

  #field(): string {
    this.#space();
    if (this.#text[this.#at] === '"') return this.#quoted('"');
    const match = /^[A-Za-z_][A-Za-z0-9_-]*|^[0-9]+[A-Za-z0-9_-]*/.exec(this.#text.slice(this.#at));
    if (!match) throw this.#error('expected field or quoted');
    this.#at += match[0].length;
    return match[0];
  }

  #operator(): '==' | '!=' | '~=' | undefined {
    const two = this.#text.slice(this.#at, this.#at + 2);
    if (two === '==' || two === '!=' || two === '~=') {
      this.#at += 2;
      return two;
    }
    if (this.#at < this.#text.length && this.#text[this.#at] !== ',')
      throw this.#error('expected an operator ("==" | "!=" | "~=")');
    return undefined;
  }

  #value(isExpression: boolean): string {
    this.#space();
    const first = this.#text[this.#at];
    if (first === '"') return this.#quoted('"');
    if (isExpression && (first === '/' || first === '|')) return this.#quoted(first);
    const match = /^[^,"\s]+/.exec(this.#text.slice(this.#at));
    if (!match) throw this.#error('expected value or quoted');
    this.#at += match[0].length;
    return match[0];
  }

  #quoted(quote: string): string {
    const start = this.#at++;
    let out = '';
    for (;;) {
      const char = this.#text[this.#at++];
      if (char === undefined) {
        this.#at = start;
        throw this.#error('quoted literal not terminated');
      }
      if (char === quote) return out;
      if (char !== '\\') {
        out += char;
        continue;
      }
      out += this.#escape(quote);
    }
  }

  /** What follows a backslash. In a regular expression's own quotes only the quote itself is unescaped. */
  #escape(quote: string): string {
    const char = this.#text[this.#at++];
    if (char === undefined) throw this.#error('unterminated escape');
    if (char === quote || (quote === '"' && char === '\\')) return char;
    if (quote !== '"') return `\\${char}`;
    const simple = { n: '\n', t: '\t', r: '\r', a: '\x07', b: '\b', f: '\f', v: '\v' }[char];
    if (simple !== undefined) return simple;
    const digits = { x: 2, u: 4, U: 8 }[char];
    const hex = digits === undefined ? '' : this.#text.slice(this.#at, this.#at + digits);
    if (digits === undefined || !new RegExp(`^[0-9a-fA-F]{${digits}}$`).test(hex)) throw this.#error('invalid escape');
    this.#at += digits;
    return String.fromCodePoint(Number.parseInt(hex, 16));
  }

  /** Go's expressions as JavaScript has them: leading flags, named groups, the ends of the text. */
  #expression(source: string): RegExp {
    const [, flags = '', rest = ''] = /^(?:\(\?([ims]+)\))?(.*)$/s.exec(source) ?? [];
    const body = rest
      .replaceAll('(?P<', '(?<')
      .replaceAll(/(?<!\\)((?:\\\\)*)\\A/g, '$1^')
      .replaceAll(/(?<!\\)((?:\\\\)*)\\z/g, '$1$$');
    try {
      return new RegExp(body, `${flags}u`);
    } catch {
      // In Unicode mode JavaScript refuses escapes of characters that need none, as in `\-`; Go takes them.
    }
    try {
      return new RegExp(body, flags);
    } catch (cause) {
      throw invalidArgument(`parse error: [${this.#text}]: ${(cause as Error).message}: invalid argument`, cause);
    }
  }

  #error(what: string): Error {
    const { length } = this.#text;
    const before = this.#text.slice(0, this.#at);
    const after = this.#text.slice(Math.min(this.#at, length));
    return invalidArgument(`parse error: [${before} >|< ${after}]: ${what}: invalid argument`);
  }
}
