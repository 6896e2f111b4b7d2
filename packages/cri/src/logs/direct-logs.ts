import { type FileHandle, mkdir, open } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { StatusError } from '@gantry/api';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import { close, O, openFifoReader, openFifoWriter } from '@gantry/sys';
import type { ContainerIo, ContainerLogOptions, ContainerLogs, OutputName } from './container-logs.ts';
import { LogLines } from './log-lines.ts';

/** Copies logs in this thread. */
export class DirectLogs implements ContainerLogs {
  readonly #log: Logger;
  readonly #open = new Set<DirectIo>();

  constructor(log: Logger) {
    this.#log = log;
  }

  async open(options: ContainerLogOptions, resume: boolean): Promise<ContainerIo> {
    const file = options.logPath === '' ? undefined : await openLog(options.logPath);
    const io = new DirectIo(options, file, this.#log, !resume);
    this.#open.add(io);
    void io.drained.finally(() => this.#open.delete(io));
    return io;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open].map((io) => io.close()));
  }
}

async function openLog(logPath: string): Promise<FileHandle> {
  try {
    await mkdir(path.dirname(logPath), { recursive: true, mode: 0o755 });
    return await open(logPath, 'a', 0o640);
  } catch (error) {
    throw StatusError.wrap(error, 'failed to create and open log file');
  }
}

type Follower = { onOutput: (name: OutputName, bytes: Uint8Array) => void; onEnd: () => void };

class DirectIo implements ContainerIo {
  readonly drained: Promise<void>;
  readonly #options: ContainerLogOptions;
  readonly #log: Logger;
  readonly #followers = new Set<Follower>();
  readonly #sockets: net.Socket[] = [];
  readonly #holders: number[] = [];
  #stdin: net.Socket | undefined;
  #file: FileHandle | undefined;
  #writing: Promise<void> = Promise.resolve();
  #ended = false;

  constructor(options: ContainerLogOptions, file: FileHandle | undefined, log: Logger, hold: boolean) {
    this.#options = options;
    this.#file = file;
    this.#log = log;
    const outputs = (['stdout', 'stderr'] as const)
      .filter((name) => options[name] !== '')
      .map((name) => this.#read(name, options[name], hold));
    if (options.stdin !== '') {
      const { fd } = openFifoWriter(options.stdin, { flags: O.NONBLOCK });
      this.#stdin = new net.Socket({ fd, readable: false, writable: true });
      this.#stdin.on('error', () => undefined);
    }
    this.drained = Promise.all(outputs).then(async () => {
      await this.#writing;
      await this.#file?.close();
      this.#file = undefined;
      this.#end();
    });
  }

  #read(name: OutputName, fifo: string, hold: boolean): Promise<void> {
    const { fd, holder } = openFifoReader(fifo, { flags: O.NONBLOCK, hold });
    if (holder >= 0) this.#holders.push(holder);
    const socket = new net.Socket({ fd, readable: true, writable: false });
    this.#sockets.push(socket);
    const lines = new LogLines(name, this.#options.maxLineSize);
    socket.on('data', (chunk: Buffer) => {
      for (const { onOutput } of this.#followers) onOutput(name, chunk);
      this.#write(lines.add(chunk), socket);
    });
    return new Promise((resolve) => {
      socket.on('error', (error) => this.#log.warn('container output', { error, id: this.#options.containerId }));
      socket.once('close', () => {
        this.#write(lines.end(), undefined);
        resolve();
      });
    });
  }

  #write(lines: Buffer[], socket: net.Socket | undefined): void {
    if (lines.length === 0 || this.#options.logPath === '') return;
    socket?.pause();
    this.#writing = this.#writing.then(async () => {
      try {
        for (const line of lines) await this.#file?.write(line);
      } catch (error) {
        this.#log.error('log cannot be written', { error, id: this.#options.containerId });
      } finally {
        socket?.resume();
      }
    });
  }

  started(): void {
    for (const fd of this.#holders.splice(0)) close(fd);
  }

  async reopen(): Promise<void> {
    if (this.#ended || this.#options.logPath === '') return;
    const file = await openLog(this.#options.logPath);
    const swap = this.#writing.then(async () => {
      await this.#file?.close();
      this.#file = file;
    });
    this.#writing = swap.catch(() => undefined);
    await swap;
  }

  follow(onOutput: Follower['onOutput'], onEnd: () => void): () => void {
    const follower = { onOutput, onEnd };
    if (this.#ended) onEnd();
    else this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  #end(): void {
    this.#ended = true;
    this.#stdin?.destroy();
    for (const { onEnd } of this.#followers) onEnd();
    this.#followers.clear();
  }

  async writeStdin(bytes: Uint8Array): Promise<void> {
    const stdin = this.#stdin;
    if (!stdin || stdin.destroyed) return;
    if (!stdin.write(bytes)) {
      await new Promise<void>((resolve) => {
        stdin.once('drain', resolve);
        stdin.once('close', () => resolve());
      });
    }
  }

  closeStdin(): void {
    this.#stdin?.end();
  }

  async close(): Promise<void> {
    this.started();
    for (const socket of this.#sockets) socket.destroy();
    await this.drained;
  }
}
