import { close, O, reopen } from '@gantry/sys';
import { type Output, own } from './output.ts';
import type { IoContext } from './process-io.ts';
import { whenRead } from './when-read.ts';

/**
 * The client's FIFO as the process's own stream. The process has it O_RDWR, and so is its own last reader; what is held here keeps
 * the bytes of a process that has ended until a reader has come, or until Delete.
 */
export class DirectOutput implements Output {
  #fd = -1;
  /** O_RDWR until the process has its own, then O_WRONLY. */
  #holder: number;
  /** The process has ended and nobody reads. */
  #abandoned = false;
  #stopWaiting: () => void = () => {};
  readonly #changed: () => void;

  private constructor(holder: number, changed: () => void) {
    this.#holder = holder;
    this.#changed = changed;
  }

  /** @param fifo an open FIFO; owned from here on */
  static make(fifo: number, context: IoContext): DirectOutput {
    const output = new DirectOutput(fifo, context.changed);
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
  static adopt(fifo: number, changed: () => void): DirectOutput {
    const output = new DirectOutput(fifo, changed);
    output.begin();
    return output;
  }

  /** For one that has ended. @param holder what that shim held; owned from here on */
  static adoptEnded(holder: number): DirectOutput {
    return new DirectOutput(holder, () => {});
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
    if (this.#holder < 0) return;
    // Its reader sees the end once it has read all; without one it is kept until Delete.
    this.#stopWaiting = whenRead(
      this.#holder,
      () => this.close(),
      () => {
        this.#abandoned = true;
        this.#changed();
      },
    );
  }

  /** While the process lives it holds the FIFO itself, and who reads it does until all is read. */
  kept(): { from?: number } {
    return this.#abandoned && this.#holder >= 0 ? { from: this.#holder } : {};
  }

  drain(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    this.#stopWaiting();
    if (this.#fd >= 0) close(this.#fd);
    if (this.#holder >= 0) close(this.#holder);
    this.#fd = this.#holder = -1;
  }
}
