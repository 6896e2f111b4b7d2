import type { LogKernel } from '../log-kernel.ts';

/** Thrown by every call after the one in which the process was killed. */
export class Killed extends Error {}

interface Pipe {
  bytes: Buffer;
  writers: boolean;
}

/** Files and pipes that outlive those who use them, and a process that can be killed in any call. For tests. */
export class FakeKernel implements LogKernel {
  readonly #files = new Map<number, Buffer>();
  readonly #pipes = new Map<number, Pipe>();
  readonly #random: () => number;
  /** The process is killed in the so-many-th call from now. */
  killIn = Number.POSITIVE_INFINITY;
  /** Bytes that can be appended before the disk is full. */
  room = Number.POSITIVE_INFINITY;

  constructor(random: () => number) {
    this.#random = random;
  }

  file(fd: number): Buffer {
    return this.#files.get(fd) ?? Buffer.alloc(0);
  }

  pipe(fd: number): Pipe {
    const pipe = this.#pipes.get(fd) ?? { bytes: Buffer.alloc(0), writers: true };
    this.#pipes.set(fd, pipe);
    return pipe;
  }

  /** Does a call, but if it is the last one: before it, after it, or when `part` of it was done. */
  #call<T>(whole: () => T, part?: () => void): T {
    if (this.killIn <= 0) throw new Killed('killed');
    this.killIn--;
    if (this.killIn > 0) return whole();
    const when = this.#random();
    if (when < 0.34) whole();
    else if (when < 0.67) part?.();
    throw new Killed('killed');
  }

  #some(length: number): number {
    return Math.floor(this.#random() * (length + 1));
  }

  take(from: number, file: number, offset: number, length: number): number {
    const pipe = this.pipe(from);
    const move = (count: number): number => {
      if (count > 0) this.#put(file, pipe.bytes.subarray(0, count), offset);
      pipe.bytes = pipe.bytes.subarray(count);
      return count;
    };
    const most = Math.min(length, pipe.bytes.length);
    return this.#call(
      () => (most === 0 ? (pipe.writers ? -1 : 0) : move(Math.max(1, this.#some(most)))),
      () => void move(this.#some(most)),
    );
  }

  read(file: number, buffer: Buffer, offset: number): number {
    return this.#call(() => this.file(file).copy(buffer, 0, offset));
  }

  write(file: number, bytes: Buffer, offset: number): void {
    const put = (count: number) => this.#put(file, bytes.subarray(0, count), offset);
    const small = bytes.length < 4096;
    this.#call(
      () => {
        if (this.room < 1000 && this.#random() < 0.3) throw noSpace();
        put(bytes.length);
      },
      small ? undefined : () => put(this.#some(bytes.length)),
    );
  }

  append(file: number, bytes: Buffer): number {
    const put = (count: number): number => {
      this.#put(file, bytes.subarray(0, count), this.file(file).length);
      this.room -= count;
      return count;
    };
    return this.#call(
      () => {
        if (this.room <= 0) throw noSpace();
        return put(Math.min(this.room, Math.max(1, this.#some(bytes.length))));
      },
      () => void put(Math.min(this.room, this.#some(bytes.length))),
    );
  }

  size(file: number): number {
    return this.#call(() => this.file(file).length);
  }

  truncate(file: number, size: number): void {
    this.#call(() => {
      this.room += Math.max(0, this.file(file).length - size);
      const bytes = Buffer.alloc(size);
      this.file(file).copy(bytes);
      this.#files.set(file, bytes);
    });
  }

  #put(file: number, bytes: Buffer, offset: number): void {
    const before = this.file(file);
    const after = Buffer.alloc(Math.max(before.length, offset + bytes.length));
    before.copy(after);
    bytes.copy(after, offset);
    this.#files.set(file, after);
  }
}

const noSpace = () => Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
