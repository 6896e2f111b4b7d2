import { fstatSync } from 'node:fs';
import { close, O, pipe2, reopen } from '@gantry/sys';
import { type Output, own } from './output.ts';
import { type IoContext, withinDrainTime } from './process-io.ts';
import { Pump } from './pump.ts';

/**
 * An anonymous pipe whose contents are carried on to a FIFO or a file. The process has its end O_RDWR: should this shim be killed, the
 * process stays its own reader, so that nothing is lost and no SIGPIPE ends it, and the next shim finds the pipe through it.
 */
export class RelayedOutput implements Output {
  readonly pipe: string;
  #fd = -1;
  #from: number;
  #to: number;
  #pump: Pump | undefined;
  readonly #changed: () => void;

  private constructor(from: number, to: number, changed: () => void) {
    this.#from = from;
    this.#to = to;
    this.#changed = changed;
    this.pipe = String(fstatSync(from, { bigint: true }).ino);
  }

  /** @param to an open file description of its own; owned from here on */
  static make(to: number, context: Pick<IoContext, 'uid' | 'gid' | 'changed'>): RelayedOutput {
    let ends: [number, number];
    try {
      ends = pipe2();
    } catch (error) {
      close(to);
      throw error;
    }
    const [from, write] = ends;
    const output = new RelayedOutput(from, to, context.changed);
    try {
      output.#fd = reopen(write, O.RDWR);
      own(output.#fd, context);
      return output;
    } catch (error) {
      output.close();
      throw error;
    } finally {
      close(write);
    }
  }

  /** For a process that another shim has started. @param from the pipe's reading end, not shared; owned from here on, as `to` */
  static adopt(from: number, to: number, changed: () => void): RelayedOutput {
    const output = new RelayedOutput(from, to, changed);
    output.begin();
    return output;
  }

  get fd(): number {
    return this.#fd;
  }

  begin(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
    this.#pump = new Pump(this.#from, this.#to, { splice: true });
    void this.#pump.done.then(this.#changed);
  }

  exited(): void {
    // The pipe's own end tells the pump.
  }

  kept(): { from?: number; to?: number } {
    if (!this.#pump) return {};
    const { ended, target } = this.#pump;
    return { ...(ended ? {} : { from: this.#from }), ...(target === undefined ? {} : { to: target }) };
  }

  /**
   * The end comes by itself when no writer is left; then what a slow reader has not taken yet goes on in the background. When
   * other processes hold the pipe, this waits as containerd does and no longer.
   */
  async drain(): Promise<void> {
    if (this.#pump) await withinDrainTime(this.#pump.done);
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
    if (this.#pump) this.#pump.finish();
    else {
      if (this.#from >= 0) close(this.#from);
      if (this.#to >= 0) close(this.#to);
      this.#from = this.#to = -1;
    }
  }
}
