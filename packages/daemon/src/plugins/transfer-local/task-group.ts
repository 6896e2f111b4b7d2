/**
 * Runs work side by side for one transfer: the first failure aborts the rest, and the group waits for all of it to stop
 * before it reports, so that nothing goes on behind an answer.
 */
export class TaskGroup {
  readonly signal: AbortSignal;
  readonly #abort = new AbortController();
  readonly #tasks = new Set<Promise<void>>();
  #failure: { reason: unknown } | undefined;

  constructor(parent?: AbortSignal) {
    this.signal = parent ? AbortSignal.any([parent, this.#abort.signal]) : this.#abort.signal;
  }

  /** Starts a task. Its failure is reported by `wait`. */
  run(task: () => Promise<void>): void {
    const running = task()
      .catch((reason: unknown) => this.fail(reason))
      .finally(() => this.#tasks.delete(running));
    this.#tasks.add(running);
  }

  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#abort.abort(reason);
  }

  /** Waits for every task, also those started meanwhile. @throws the first failure */
  async wait(): Promise<void> {
    while (this.#tasks.size > 0) await Promise.all(this.#tasks);
    if (this.#failure) throw this.#failure.reason;
  }
}
