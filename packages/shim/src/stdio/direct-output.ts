import { close, O, POLL, poll, reopen } from '@gantry/sys';
import { type Output, own } from './output.ts';
import type { IoContext } from './process-io.ts';

/**
 * The client's FIFO as the process's own stream. The process has it O_RDWR, and so is its own last reader; what is held here keeps
 * the bytes of a process that has ended until a reader has come, or until Delete.
 */
export class DirectOutput implements Output {
  #fd = -1;
  /** O_RDWR until the process has its own, then O_WRONLY. */
  #holder: number;
  #exited = false;

  private constructor(holder: number) {
    this.#holder = holder;
  }

  /** @param fifo an open FIFO; owned from here on */
  static make(fifo: number, context: IoContext): DirectOutput {
    const output = new DirectOutput(fifo);
    try {
      output.#fd = reopen(fifo, O.RDWR | O.NOCTTY);
      own(output.#fd, context);
      return output;
    } catch (error) {
      output.close();
      throw error;
    }
  }

  /** For a process that another shim has started. @param fifo the FIFO opened again; owned from here on */
  static adopt(fifo: number): DirectOutput {
    const output = new DirectOutput(fifo);
    output.begin();
    return output;
  }

  /** For one that has ended. @param holder what that shim held; owned from here on */
  static adoptEnded(holder: number): DirectOutput {
    return new DirectOutput(holder);
  }

  get fd(): number {
    return this.#fd;
  }

  begin(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
    const holder = reopen(this.#holder, O.WRONLY | O.NONBLOCK | O.NOCTTY);
    close(this.#holder);
    this.#holder = holder;
  }

  exited(): void {
    this.#exited = true;
    // Without a reader the pipe would be emptied by closing it: kept until Delete then.
    if (this.#holder < 0 || ((poll([{ fd: this.#holder, events: POLL.OUT }])[0] ?? 0) & POLL.ERR) !== 0) return;
    close(this.#holder);
    this.#holder = -1;
  }

  /** While the process lives it holds the FIFO itself. */
  kept(): { from?: number } {
    return this.#exited && this.#holder >= 0 ? { from: this.#holder } : {};
  }

  drain(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    if (this.#holder >= 0) close(this.#holder);
    this.#fd = this.#holder = -1;
  }
}
