import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Reads a log from where it last was, as `kubectl logs -f` does, and keeps what it has read in a file of its own. */
export class LogFollower {
  /** What it has read. */
  readonly copy: string;
  readonly #done: Promise<void>;
  #last = false;

  constructor(log: string) {
    this.copy = `${log}.followed`;
    this.#done = this.#follow(log);
  }

  async #follow(log: string): Promise<void> {
    const buffer = Buffer.alloc(64 << 10);
    const from = openSync(log, 'r');
    const to = openSync(this.copy, 'w');
    try {
      for (let at = 0; ; ) {
        const last = this.#last;
        const count = readSync(from, buffer, 0, buffer.length, at);
        at += count;
        writeSync(to, buffer, 0, count);
        if (count > 0) continue;
        if (last) return;
        await sleep(1);
      }
    } finally {
      closeSync(from);
      closeSync(to);
    }
  }

  /** Reads to the end of a log that nobody writes any more. */
  async end(): Promise<void> {
    this.#last = true;
    await this.#done;
  }
}
