import { fstatSync } from 'node:fs';
import type { DescriptorKind } from '@gantry/api';
import { AT_FDCWD, close, hasErrno, O, openat, openFifoReader, pipe2 } from '@gantry/sys';
import { log } from '../log.ts';
import { own } from './output.ts';
import type { IoContext } from './process-io.ts';
import { Pump } from './pump.ts';

/**
 * A process's standard input: the client's FIFO itself, O_RDONLY, or where CRIU may come to freeze the process, a pipe that the FIFO is
 * carried on to. A writer of the FIFO is held here until CloseIO, so that clients may come and go.
 */
export class Input {
  #fd: number | null = null;
  #holder = -1;
  /** Where relayed input comes from and goes to. */
  #ends: [number, number] | undefined;
  #pump: Pump | undefined;
  readonly #changed: () => void;

  private constructor(changed: () => void) {
    this.#changed = changed;
  }

  static open(name: string, context: IoContext): Input {
    const input = new Input(context.changed);
    // O_PATH is no reader: one that came and went would let a waiting writer in, and take what it wrote along.
    const probe = openat(AT_FDCWD, name, O.PATH);
    const isFifo = fstatSync(probe).isFIFO();
    close(probe);
    if (!isFifo) {
      input.#fd = openat(AT_FDCWD, name, O.RDONLY | O.NOCTTY);
      return input;
    }
    const { fd, holder } = openFifoReader(name, { hold: true, flags: context.freezable ? O.NONBLOCK : 0 });
    input.#holder = holder;
    if (!context.freezable) {
      input.#fd = fd;
      return input;
    }
    const [from, to] = pipe2();
    own(from, context);
    input.#ends = [fd, to];
    input.#fd = from;
    return input;
  }

  /**
   * For a process that another shim has started.
   * @param holder what keeps the FIFO open, -1 for nothing
   * @param pipe the writing end of the process's pipe, -1 if it has the FIFO itself; both owned from here on
   */
  static adopt(name: string, holder: number, pipe: number, changed: () => void): Input {
    const input = new Input(changed);
    input.#holder = holder;
    if (pipe < 0) return input;
    try {
      input.#ends = [openFifoReader(name, { flags: O.NONBLOCK }).fd, pipe];
      input.begin();
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) log.warn('input cannot be connected again', { name, error });
      close(pipe);
    }
    return input;
  }

  /** The process's end, until `begin`. */
  get fd(): number | null {
    return this.#fd;
  }

  begin(): void {
    this.#closeEnd();
    if (!this.#ends) return;
    this.#pump = new Pump(...this.#ends, { splice: true });
    void this.#pump.done.then(this.#changed);
  }

  /** No more than what is there and what other writers add. */
  closeStdin(): void {
    if (this.#holder >= 0) close(this.#holder);
    this.#holder = -1;
  }

  addKept(kept: Map<DescriptorKind, number>): void {
    if (this.#holder >= 0) kept.set('stdin', this.#holder);
    if (this.#ends && this.#pump && !this.#pump.ended) kept.set('stdin-to', this.#ends[1]);
  }

  close(): void {
    this.closeStdin();
    this.#closeEnd();
    if (this.#pump) this.#pump.stop();
    else for (const fd of this.#ends ?? []) close(fd);
    this.#ends = undefined;
  }

  #closeEnd(): void {
    if (this.#fd !== null) close(this.#fd);
    this.#fd = null;
  }
}
