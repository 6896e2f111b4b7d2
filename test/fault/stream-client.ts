import { closeSync, constants, openSync, rmSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno, mkfifo } from '@gantry/sys';
import { eventually } from '../lib/processes.ts';

/** How long output may take to arrive, on a busy machine. */
const arrivalMs = 30_000;

/**
 * The client's end of a process's output: a FIFO that is read until its end. What comes is split into lines, and every line that is a
 * number (after `prefix`) must be the one before it plus one.
 */
export class OutputReader {
  readonly path: string;
  /** Lines that are no numbers, the last ones of them. */
  readonly words: string[] = [];
  bytes = 0;
  /** The number that comes next. */
  next = 0;
  /** The first thing that is wrong with the sequence. */
  fault: string | undefined;
  isEnded = false;
  readonly #prefix: string;
  #comeBack = false;
  #socket: Socket;
  #holder: number;
  #rest = '';

  constructor(path: string, prefix = '') {
    this.path = path;
    mkfifo(path, 0o600);
    // Until the process has the FIFO nobody else may write to it, and it would be at its end.
    this.#holder = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    this.#prefix = prefix;
    this.#socket = this.#attach();
  }

  #attach(): Socket {
    const fd = openSync(this.path, constants.O_RDONLY | constants.O_NONBLOCK);
    const socket = new Socket({ fd, readable: true, writable: false });
    socket.on('data', (data: Buffer) => this.#take(data));
    socket.on('error', (error) => {
      this.fault ??= error.message;
    });
    socket.on('close', () => {
      this.isEnded = true;
      if (this.#comeBack) this.reattach();
    });
    return socket;
  }

  /** Attaches again where it was at its end, or else as soon as it gets there: whoever had the other end of it has died. */
  reattach(): void {
    this.#comeBack = !this.isEnded;
    if (!this.isEnded) return;
    this.#holder = openSync(this.path, constants.O_RDWR | constants.O_NONBLOCK);
    this.isEnded = false;
    this.#socket = this.#attach();
  }

  /** The process has the FIFO: its end may be seen. */
  letGo(): void {
    if (this.#holder >= 0) closeSync(this.#holder);
    this.#holder = -1;
  }

  /** Stops reading for a while, as a client that is slow or was stopped. */
  async pause(ms: number): Promise<void> {
    this.#socket.pause();
    await sleep(ms);
    this.#socket.resume();
  }

  /** Waits for the sequence to get to a number. */
  async reach(next: number): Promise<void> {
    await eventually(
      `${this.path} gets to ${next}`,
      () => (this.fault !== undefined || this.next >= next ? true : undefined),
      arrivalMs,
    ).catch((error) => {
      throw new Error(`${error.message}: it is at ${this.next}, ended ${this.isEnded}, ${this.words.slice(-3)}`);
    });
    this.check();
  }

  /** Waits for the end of the stream. */
  async ended(): Promise<void> {
    this.#comeBack = false;
    this.letGo();
    await eventually(`the end of ${this.path}`, () => (this.isEnded ? true : undefined), arrivalMs);
    this.check();
  }

  /** @throws if numbers were missing, double or out of order */
  check(): void {
    if (this.fault !== undefined) throw new Error(`${this.path}: ${this.fault}`);
  }

  close(): void {
    this.#comeBack = false;
    this.letGo();
    this.#socket.destroy();
    rmSync(this.path, { force: true });
  }

  #take(data: Buffer): void {
    const prefix = this.#prefix;
    this.bytes += data.length;
    const lines = (this.#rest + data.toString('latin1')).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) {
      const text = line.endsWith('\r') ? line.slice(0, -1) : line;
      const number = text.startsWith(prefix) ? text.slice(prefix.length) : '';
      if (/^\d+$/.test(number)) {
        if (Number(number) !== this.next) this.fault ??= `after ${this.next - 1} comes ${JSON.stringify(text)}`;
        this.next = Number(number) + 1;
      } else {
        if (text.length > 100) this.fault ??= `not a line of this sequence: ${JSON.stringify(text.slice(0, 100))}`;
        this.words.push(text);
        if (this.words.length > 20) this.words.shift();
      }
    }
  }
}

/** Attaches to a process's input, writes and leaves. @throws ENXIO if nobody holds it open */
export async function writeInput(path: string, text: string): Promise<void> {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    for (let data = Buffer.from(text); data.length > 0; ) {
      try {
        data = data.subarray(writeSync(fd, data));
      } catch (error) {
        if (!hasErrno(error, 'EAGAIN')) throw error;
        await sleep(5);
      }
    }
  } finally {
    closeSync(fd);
  }
}
