import { failedPrecondition } from '@gantry/api';

/** Names of pods and containers that are taken, each by one id: two calls to create the same thing do not both succeed. */
export class NameIndex {
  readonly #ids = new Map<string, string>();

  /** @throws FailedPrecondition if another id has it */
  reserve(name: string, id: string): void {
    const holder = this.#ids.get(name);
    if (holder !== undefined && holder !== id) throw failedPrecondition(`name "${name}" is reserved for "${holder}"`);
    this.#ids.set(name, id);
  }

  /** Nothing happens to a name that another id has. */
  release(name: string, id: string): void {
    if (this.#ids.get(name) === id) this.#ids.delete(name);
  }

  holder(name: string): string | undefined {
    return this.#ids.get(name);
  }
}
