/** Does one piece of work at a time, again and again: those who ask while it is being done share the next time. */
export class SharedRun {
  readonly #work: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(work: () => Promise<void>) {
    this.#work = work;
  }

  /** Settles with a run that began after the call. */
  run(): Promise<void> {
    if (!this.#running) return this.#start();
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.#start();
      });
    return this.#next;
  }

  #start(): Promise<void> {
    const mine = this.#work();
    this.#running = mine;
    const end = (): void => {
      if (this.#running === mine) this.#running = undefined;
    };
    mine.then(end, end);
    return mine;
  }
}
