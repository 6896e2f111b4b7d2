import { rmSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { type DescriptorKind, failedPrecondition, unknown } from '@gantry/api';
import {
  AT_FDCWD,
  close,
  dupFd,
  hasErrno,
  O,
  openat,
  openFifoReader,
  readable,
  recvFds,
  setWinsize,
} from '@gantry/sys';
import { log } from '../log.ts';
import type { Stdio } from '../oci-runtime.ts';
import { type IoContext, type ProcessIo, type StdioRequest, type TerminalSize, withinDrainTime } from './process-io.ts';
import { Pump } from './pump.ts';
import { openTargetAgain } from './targets.ts';

/** How long the runtime may take to hand over the master after it has said that the process exists. */
const masterTimeoutMs = 5000;

let sockets = 0;

/**
 * A terminal as the process's standard streams. The runtime opens it and passes its master over a console socket; what the client
 * writes to the stdin FIFO goes into the master, what comes out of it goes to the stdout FIFO (or a descriptor given instead).
 */
export class TerminalIo implements ProcessIo {
  readonly stdio: Stdio = [null, null, null];
  readonly pipes = {};
  readonly consoleSocket: string;
  readonly #server: net.Server;
  readonly #master: Promise<number>;
  readonly #changed: () => void;
  /** Where the output goes, opened before the process is. */
  #to: number;
  #from = -1;
  #stdinHolder = -1;
  #resizer = -1;
  #input: Pump | undefined;
  #output: Pump | undefined;

  private constructor(context: Pick<IoContext, 'socketDir' | 'changed'>, to: number) {
    this.#to = to;
    this.#changed = context.changed;
    this.consoleSocket = path.join(context.socketDir, `pty${process.pid}-${sockets++}`);
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#master = promise;
    promise.catch(() => {});
    // Not read by Node: recvmsg is the only way to the descriptor that comes with the first byte.
    this.#server = net.createServer({ pauseOnConnect: true }, (socket) => {
      const fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
      receiveMaster(fd)
        .then(resolve, reject)
        .finally(() => socket.destroy());
    });
  }

  /** `to`: a descriptor that takes the output instead of the stdout FIFO (a logger's pipe); owned from here on. */
  static async open(request: StdioRequest, context: IoContext, to?: number): Promise<TerminalIo> {
    const io = new TerminalIo(context, to ?? -1);
    try {
      if (request.stdin !== '') {
        const { fd, holder } = openFifoReader(request.stdin, { flags: O.NONBLOCK, hold: true });
        io.#from = fd;
        io.#stdinHolder = holder;
      }
      if (to === undefined)
        io.#to = openat(AT_FDCWD, request.stdout === '' ? '/dev/null' : request.stdout, O.RDWR | O.NONBLOCK | O.NOCTTY);
      await io.#listen();
      return io;
    } catch (error) {
      io.close();
      throw error;
    }
  }

  /**
   * For a process that another shim has started.
   * @param kept what that shim had handed over: the master at least; owned from here on
   * @param stdinClosed CloseIO has been called
   */
  static adopt(
    request: StdioRequest,
    context: Pick<IoContext, 'socketDir' | 'changed'>,
    kept: Map<DescriptorKind, number>,
    stdinClosed: boolean,
  ): TerminalIo {
    const io = new TerminalIo(context, kept.get('stdout-to') ?? openTargetAgain(request.stdout).fd);
    io.#stdinHolder = kept.get('stdin') ?? -1;
    if (request.stdin !== '') io.#openInputAgain(request.stdin, stdinClosed);
    io.#begin(kept.get('terminal')!);
    return io;
  }

  #openInputAgain(name: string, stdinClosed: boolean): void {
    try {
      const { fd, holder } = openFifoReader(name, { flags: O.NONBLOCK, hold: true });
      this.#from = fd;
      if (stdinClosed || this.#stdinHolder >= 0) close(holder);
      else this.#stdinHolder = holder;
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) log.warn('input cannot be connected again', { name, error });
    }
  }

  #listen(): Promise<void> {
    rmSync(this.consoleSocket, { force: true });
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      const before = process.umask(0o177);
      try {
        this.#server.listen(this.consoleSocket, resolve);
      } finally {
        process.umask(before);
      }
    });
  }

  async started(): Promise<void> {
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => reject(unknown('failed to start console copy: no terminal was handed over')),
      masterTimeoutMs,
    );
    let master: number;
    try {
      master = await Promise.race([this.#master, promise]);
    } finally {
      clearTimeout(timer);
      this.#server.close();
    }
    this.#begin(master);
  }

  #begin(master: number): void {
    // Copies, because one pump may end (and close its descriptor) before the other.
    this.#resizer = dupFd(master);
    if (this.#from >= 0) this.#input = new Pump(this.#from, dupFd(master), { splice: true });
    this.#output = new Pump(master, this.#to, { splice: true, smallPieces: true });
    void this.#output.done.then(this.#changed);
    this.#from = this.#to = -1;
  }

  kept(): Map<DescriptorKind, number> {
    const kept = new Map<DescriptorKind, number>();
    if (this.#stdinHolder >= 0) kept.set('stdin', this.#stdinHolder);
    if (this.#resizer >= 0) kept.set('terminal', this.#resizer);
    const target = this.#output?.target;
    if (target !== undefined) kept.set('stdout-to', target);
    return kept;
  }

  resize(size: TerminalSize): void {
    if (this.#resizer < 0) throw failedPrecondition('the terminal is closed');
    setWinsize(this.#resizer, size);
  }

  closeStdin(): void {
    if (this.#stdinHolder >= 0) close(this.#stdinHolder);
    this.#stdinHolder = -1;
  }

  exited(): void {
    this.closeStdin();
    this.#input?.stop();
  }

  async drain(): Promise<void> {
    if (this.#output) await withinDrainTime(this.#output.done);
  }

  close(): void {
    this.exited();
    this.#server.close();
    rmSync(this.consoleSocket, { force: true });
    for (const fd of [this.#from, this.#to, this.#resizer]) if (fd >= 0) close(fd);
    this.#from = this.#to = this.#resizer = -1;
    this.#output?.finish();
    // A master that came although the call failed.
    if (!this.#output) void this.#master.then(close, () => {});
  }
}

async function receiveMaster(socket: number): Promise<number> {
  const fd = dupFd(socket);
  try {
    for (;;) {
      await readable(fd);
      try {
        const { fds } = recvFds(fd, 1, 4096);
        const master = fds[0];
        if (master === undefined) throw unknown('the runtime sent no terminal');
        return master;
      } catch (error) {
        if (!hasErrno(error, 'EAGAIN')) throw error;
      }
    }
  } finally {
    close(fd);
  }
}
