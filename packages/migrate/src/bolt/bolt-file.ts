import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { failedPrecondition, notFound, StatusError } from '@gantry/api';
import { hasErrno } from '@gantry/sys/error.ts';
import { lockFileShared } from '@gantry/sys/locks.ts';
import { BoltBucket } from './bucket.ts';
import * as layout from './layout.ts';
import { chooseMeta, corrupt, type Meta } from './meta.ts';
import { Page } from './page.ts';

/** Nothing that containerd writes comes near; what does is a circle or an attack. */
const largestPage = 256 * 1024 * 1024;

/**
 * A bbolt file, read only and by position. While it is open no other process can open it for writing: bbolt's own lock is
 * held, shared. So what is read is one state of it, that of the last whole transaction.
 */
export class BoltFile {
  readonly path: string;
  readonly meta: Meta;
  readonly #fd: number;
  readonly #size: number;
  #pagesLeft: number;

  /**
   * @throws StatusError NotFound if it is not there; FailedPrecondition if a process has it open for writing, or if it is
   * not a bbolt file
   */
  constructor(path: string) {
    this.path = path;
    this.#fd = open(path);
    try {
      const stat = fstatSync(this.#fd);
      if (!stat.isFile()) throw corrupt(path, 'not a regular file');
      this.#size = stat.size;
      this.#lock();
      this.meta = chooseMeta(path, (position, length) => this.#read(position, length));
      if (this.meta.highWater * this.meta.pageSize > this.#size)
        throw corrupt(
          path,
          `it should have ${this.meta.highWater} pages of ${this.meta.pageSize} bytes, but is cut off`,
        );
      // A sound file is walked with a read a page, and a few more for keys that are looked up.
      this.#pagesLeft = this.meta.highWater * 32 + 10_000;
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** The file's own bucket, which holds buckets only. */
  get root(): BoltBucket {
    return new BoltBucket(this, this.meta.root, undefined, 0);
  }

  /** A page with its overflow. For the buckets of this file. */
  page(number: number): Page {
    if (!(number >= 2 && number < this.meta.highWater))
      throw corrupt(this.path, `page ${number} of ${this.meta.highWater} is named`);
    if (--this.#pagesLeft < 0) throw corrupt(this.path, 'more pages are named than it has');
    const position = number * this.meta.pageSize;
    const header = this.#read(position, layout.pageHeaderSize);
    if (header.length < layout.pageHeaderSize) throw corrupt(this.path, `page ${number} is cut off`);
    const id = header.readBigUInt64LE(0);
    if (id !== BigInt(number)) throw corrupt(this.path, `page ${number} says that it is page ${id}`);
    const pages = header.readUInt32LE(12) + 1;
    const length = pages * this.meta.pageSize;
    if (number + pages > this.meta.highWater || length > largestPage)
      throw corrupt(this.path, `page ${number} runs on for ${pages} pages`);
    const bytes = this.#read(position, length);
    if (bytes.length < length) throw corrupt(this.path, `page ${number} is cut off`);
    return new Page(this.path, `page ${number}`, bytes);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  #lock(): void {
    try {
      lockFileShared(this.#fd);
    } catch (error) {
      if (!hasErrno(error, 'EAGAIN')) throw error;
      throw failedPrecondition(`${this.path}: in use: a process has it open for writing`, error);
    }
  }

  #read(position: number, length: number): Buffer {
    const bytes = Buffer.alloc(Math.max(0, Math.min(length, this.#size - position)));
    let at = 0;
    while (at < bytes.length) {
      const count = readSync(this.#fd, bytes, at, bytes.length - at, position + at);
      if (count === 0) break;
      at += count;
    }
    return bytes.subarray(0, at);
  }
}

function open(path: string): number {
  try {
    // Non-blocking, so that a FIFO in its place is refused rather than waited for.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw notFound(`${path}: no such file`, error);
    throw StatusError.wrap(error, path);
  }
}
