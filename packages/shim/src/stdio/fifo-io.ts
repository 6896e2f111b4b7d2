import { fchownSync, fstatSync, openSync } from 'node:fs';
import { failedPrecondition, invalidArgument } from '@gantry/api';
import { AT_FDCWD, close, O, openat, openFifoReader, POLL, pipe2, poll, reopen } from '@gantry/sys';
import type { Stdio } from '../oci-runtime.ts';
import { drainTimeoutMs, type IoContext, type ProcessIo, type StdioRequest } from './process-io.ts';
import { Pump } from './pump.ts';

/** One output stream: what the process gets, and how it is brought to its end. */
interface Output {
  /** The process's end, until `started`. */
  fd: number;
  begin(): void;
  exited(): void;
  drain(): Promise<void>;
  close(): void;
}

/**
 * FIFOs, regular files and /dev/null as standard streams. *Direct* output is the client's FIFO itself, O_RDWR, so that nothing is
 * copied and the process is its own last reader; *relayed* output goes through an anonymous pipe and a pump. Input is the FIFO
 * itself, O_RDONLY, with a writer held here until CloseIO; where CRIU may come to freeze the process, it is a pipe as well.
 */
export class FifoIo implements ProcessIo {
  readonly stdio: Stdio;
  readonly #outputs: Output[] = [];
  #stdin: number | null = null;
  #stdinHolder = -1;
  /** Where relayed input comes from and goes to, until `started`. */
  #inputEnds: [number, number] | undefined;
  #input: Pump | undefined;

  constructor(request: StdioRequest, context: IoContext) {
    try {
      if (request.stdin !== '') this.#openStdin(request.stdin, context);
      const stdout = this.#openOutput(request.stdout, context);
      // One place for both streams is opened once, so that their order is kept.
      const stderr = request.stderr === request.stdout ? stdout : this.#openOutput(request.stderr, context);
      this.stdio = [this.#stdin, stdout?.fd ?? null, stderr?.fd ?? null];
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #openStdin(name: string, context: IoContext): void {
    // O_PATH is no reader: one that came and went would let a waiting writer in, and take what it wrote along.
    const probe = openat(AT_FDCWD, name, O.PATH);
    const isFifo = fstatSync(probe).isFIFO();
    close(probe);
    if (!isFifo) {
      this.#stdin = openat(AT_FDCWD, name, O.RDONLY | O.NOCTTY);
      return;
    }
    const { fd, holder } = openFifoReader(name, { hold: true, flags: context.freezable ? O.NONBLOCK : 0 });
    this.#stdinHolder = holder;
    if (context.freezable) {
      const [from, to] = pipe2();
      own(from, context);
      this.#inputEnds = [fd, to];
      this.#stdin = from;
    } else this.#stdin = fd;
  }

  #openOutput(target: string, context: IoContext): Output | undefined {
    if (target === '') return undefined;
    const output = openOutput(target, context);
    this.#outputs.push(output);
    return output;
  }

  async started(): Promise<void> {
    this.#closeStdinEnd();
    if (this.#inputEnds) this.#input = new Pump(...this.#inputEnds, { splice: true });
    this.#inputEnds = undefined;
    for (const output of this.#outputs) output.begin();
  }

  resize(): void {
    throw failedPrecondition('the process has no terminal');
  }

  closeStdin(): void {
    if (this.#stdinHolder >= 0) close(this.#stdinHolder);
    this.#stdinHolder = -1;
  }

  exited(): void {
    this.closeStdin();
    this.#input?.stop();
    for (const output of this.#outputs) output.exited();
  }

  async drain(): Promise<void> {
    await Promise.all(this.#outputs.map((output) => output.drain()));
  }

  close(): void {
    this.closeStdin();
    this.#closeStdinEnd();
    this.#input?.stop();
    for (const fd of this.#inputEnds ?? []) close(fd);
    this.#inputEnds = undefined;
    for (const output of this.#outputs) output.close();
  }

  #closeStdinEnd(): void {
    if (this.#stdin !== null) close(this.#stdin);
    this.#stdin = null;
  }
}

function openOutput(target: string, context: IoContext): Output {
  const file = filePath(target);
  if (file !== undefined) return new RelayedOutput(openSync(file, 'a', 0o640), context);
  const name = fifoPath(target);
  const fd = openat(AT_FDCWD, name, O.RDWR | O.NONBLOCK | O.NOCTTY);
  if (!fstatSync(fd).isFIFO()) {
    // A terminal or a regular file: written to at its end, as it is.
    close(fd);
    return new RelayedOutput(openat(AT_FDCWD, name, O.WRONLY | O.APPEND | O.NOCTTY), context);
  }
  return context.direct ? new DirectOutput(fd, context) : new RelayedOutput(fd, context);
}

/** The path of a `file://` URI. */
function filePath(target: string): string | undefined {
  if (!target.startsWith('file://')) return undefined;
  return decodeURIComponent(new URL(target).pathname);
}

function fifoPath(target: string): string {
  if (target.startsWith('fifo://')) return decodeURIComponent(new URL(target).pathname);
  if (/^[a-z][a-z0-9+.-]*:\/\//.test(target)) throw invalidArgument(`unknown STDIO scheme ${target.split(':')[0]}`);
  return target;
}

function own(fd: number, context: IoContext): void {
  if (context.uid !== 0 || context.gid !== 0) fchownSync(fd, context.uid, context.gid);
}

/** The client's FIFO as the process's own stream. */
class DirectOutput implements Output {
  fd: number;
  /** Keeps what was written until a reader has come: O_RDWR until the process has its own, then O_WRONLY. */
  #holder: number;

  constructor(holder: number, context: IoContext) {
    this.#holder = holder;
    this.fd = reopen(holder, O.RDWR | O.NOCTTY);
    own(this.fd, context);
  }

  begin(): void {
    close(this.fd);
    this.fd = -1;
    const holder = reopen(this.#holder, O.WRONLY | O.NONBLOCK | O.NOCTTY);
    close(this.#holder);
    this.#holder = holder;
  }

  exited(): void {
    // Without a reader the pipe would be emptied by closing it: kept until Delete then.
    if (this.#holder < 0 || ((poll([{ fd: this.#holder, events: POLL.OUT }])[0] ?? 0) & POLL.ERR) !== 0) return;
    close(this.#holder);
    this.#holder = -1;
  }

  drain(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    if (this.fd >= 0) close(this.fd);
    if (this.#holder >= 0) close(this.#holder);
    this.fd = this.#holder = -1;
  }
}

/** A pipe whose contents are carried on to a FIFO or a file. */
export class RelayedOutput implements Output {
  fd: number;
  #from: number;
  #to: number;
  #pump: Pump | undefined;

  constructor(to: number, context: IoContext) {
    this.#to = to;
    [this.#from, this.fd] = pipe2();
    own(this.fd, context);
  }

  begin(): void {
    close(this.fd);
    this.fd = -1;
    this.#pump = new Pump(this.#from, this.#to, { splice: true });
    this.#from = this.#to = -1;
  }

  exited(): void {
    // The pipe's own end tells the pump.
  }

  /**
   * The end comes by itself when no writer is left; then what a slow reader has not taken yet goes on in the background. When
   * other processes hold the pipe, this waits as containerd does and no longer.
   */
  async drain(): Promise<void> {
    if (!this.#pump) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, drainTimeoutMs);
    await Promise.race([this.#pump.done, promise]);
    clearTimeout(timer);
  }

  close(): void {
    if (this.fd >= 0) close(this.fd);
    if (this.#from >= 0) close(this.#from);
    if (this.#to >= 0) close(this.#to);
    this.fd = this.#from = this.#to = -1;
    this.#pump?.finish();
  }
}
