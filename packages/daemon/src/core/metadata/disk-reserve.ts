import { closeSync, fstatSync, openSync, statSync, write, writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { resourceExhausted } from '@gantry/api';
import { FS_MAGIC, fallocate, fallocateAsync, hasErrno, ioctlAsync, statfs } from '@gantry/sys';

/** What lmdb tells of a database. */
export interface DatabaseShape {
  pageSize: number;
  /** Pages up to the last one ever used; free ones among them count. */
  pages: number;
  /** Of the tree itself: those of large records are apart, and never copied. */
  treePages: number;
  treeDepth: number;
}

/** What updates have asked for: enough to say how many pages they write at most. */
export class Work {
  puts = 0;
  removes = 0;
  /** Bytes of records that get pages of their own. */
  large = 0;

  add(other: Readonly<Work>, sign: 1 | -1 = 1): void {
    this.puts += sign * other.puts;
    this.removes += sign * other.removes;
    this.large += sign * other.large;
  }
}

/** A put above this gets pages of its own (lmdb's limit is a little higher). */
const largeRecord = 1900;
const marginPages = 64;
const smallestStep = 64 << 10;
/** Enough for the readers' table of lmdb's lock file. */
const lockBytes = 12288;
const noSpace = ['ENOSPC', 'EDQUOT', 'EFBIG'];
const notHere = ['EOPNOTSUPP', 'ENOTSUP', 'ENOSYS'];
/** FALLOC_FL_KEEP_SIZE. */
const keepSize = 1;
const noCopyOnWrite = 0x00800000;
const zeros = Buffer.alloc(64 << 10);
const writeAsync = promisify(write);

/**
 * Room on disk that lmdb's file owns before lmdb writes there. lmdb does not survive a write that fails for want of space (it
 * aborts, or never answers), so an update is refused before it is given to lmdb. Half of the reserve is kept for updates that
 * add nothing, so that a full disk can be emptied. It is renewed ahead of time, off the main thread.
 *
 * The blocks are allocated (fallocate), so that ext4, XFS and tmpfs need no space for writing there later; for btrfs the file is made
 * without copy-on-write. Where there is no fallocate, zeros are appended, which cannot hit what lmdb has written.
 *
 * Allocated blocks are then written as well: a block's first write changes the file's extents, so that lmdb's fdatasync has to write these
 * too, which takes several times as long as a sync of blocks that were written before.
 */
export class DiskReserve {
  /** Writes to its end only. */
  readonly #fd: number;
  /** Writes where it is told to. */
  readonly #anywhere: number;
  readonly #size: number;
  /** Writes below this offset need no space of the filesystem. */
  #allocated: number;
  #look: () => DatabaseShape = () => ({ pageSize: 4096, pages: 0, treePages: 0, treeDepth: 1 });
  #shape = this.#look();
  /** What lmdb was asked for since `#shape` was true, and what of all it has not answered yet. */
  readonly #since = new Work();
  readonly #unanswered = new Work();
  #full = false;
  /** There is no fallocate here. */
  readonly #appends: boolean;
  #renewal: Promise<void> | undefined;
  #closed = false;

  private constructor(fd: number, size: number, allocated: number, appends: boolean) {
    this.#fd = fd;
    this.#anywhere = openSync(`/proc/self/fd/${fd}`, 'r+');
    this.#size = size;
    this.#allocated = allocated;
    this.#appends = appends;
  }

  /**
   * Before lmdb opens `path`, or makes it. `size` in bytes.
   * @throws ResourceExhausted if there is no room for an empty database.
   */
  static async open(path: string, size: number): Promise<DiskReserve> {
    const fd = openSync(path, 'a+', 0o664);
    try {
      await allocateLock(`${path}-lock`);
      const { size: present, blocks } = fstatSync(fd);
      if (present === 0) {
        if (statfs(fd).type === FS_MAGIC.BTRFS) await withoutCopyOnWrite(fd);
        // lmdb takes a file that is not empty for a database.
        const got = await reserved(() => fallocateAsync(fd, keepSize, 0, size));
        if (got === 'full') throw resourceExhausted(`${path}: no space left on device`);
        return new DiskReserve(fd, size, got === 'all' ? size : 0, got === 'unsupported');
      }
      // It may have holes: pages that were free again before they were written.
      const got = await reserved(() => fallocateAsync(fd, 0, 0, present));
      return new DiskReserve(fd, size, got !== 'full' || blocks * 512 >= present ? present : 0, got === 'unsupported');
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Once lmdb has opened the file. `look` is cheap, and tells what is committed. */
  async watch(look: () => DatabaseShape): Promise<void> {
    this.#look = look;
    this.#refresh();
    // lmdb writes nothing yet. A write that fails leaves the blocks as they are: allocated.
    for (let at = this.#used(); at < this.#allocated && !this.#appends; at += zeros.length)
      await writeAsync(this.#anywhere, zeros, 0, Math.min(zeros.length, this.#allocated - at), at).catch(
        () => undefined,
      );
    await this.renew();
  }

  /** Whether an update that adds something would be refused now: `renew` may change that. */
  get low(): boolean {
    return this.#full && this.#left() < this.#wanted() / 2;
  }

  /**
   * Counts what an update is about to ask lmdb for; `adds` says whether that makes the database larger, and is asked only
   * when little is left. `settle` follows once lmdb has answered.
   * @throws ResourceExhausted if it might not find room; then it must not be asked for.
   */
  charge(update: Work, { put, bytes }: { put: boolean; bytes: number }, adds: () => boolean): void {
    const step = new Work();
    if (put) step.puts = 1;
    else step.removes = 1;
    if (bytes > largeRecord) step.large = bytes + 2 * this.#shape.pageSize;
    for (const work of [this.#since, this.#unanswered, update]) work.add(step);
    if (this.#left() >= this.#wanted() * 0.75) return;
    this.#refresh();
    if (this.#left() >= this.#wanted() * 0.75) return;
    void this.renew();
    if (this.#left() >= this.#wanted() / 2) return;
    // More at once than the reserve was made for; it cannot wait in the middle of a transaction.
    if (!this.#full && this.#growNow()) return;
    if (this.#left() >= this.#margin() && !adds()) return;
    throw resourceExhausted('metadata cannot be written: no space left on device');
  }

  /** lmdb has committed an update, or dropped it. */
  settle(update: Work): void {
    this.#unanswered.add(update, -1);
  }

  /** Gets as much as is missing, or as there is. Does not fail. */
  renew(): Promise<void> {
    this.#renewal ??= this.#renew().finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  /** Before lmdb closes the file: nothing is looked at any more. */
  async stop(): Promise<void> {
    this.#closed = true;
    await this.#renewal;
  }

  /** Once lmdb has closed it. */
  async close(): Promise<void> {
    await this.stop();
    closeSync(this.#anywhere);
    closeSync(this.#fd);
  }

  async #renew(): Promise<void> {
    if (this.#closed) return;
    this.#refresh();
    for (let step = this.#missing(); step > 0 && !this.#closed; ) {
      const offset = this.#allocated;
      const got = this.#appends
        ? await reserved(() => this.#append(step))
        : await reserved(() => fallocateAsync(this.#fd, 0, offset, step));
      if (got === 'full') {
        this.#full = true;
        step = Math.floor(step / 2);
        if (step < smallestStep) return;
        continue;
      }
      if (!this.#appends) await this.#count(offset + step);
      if (this.#closed) return;
      this.#refresh();
      step = this.#full ? Math.min(step, this.#missing()) : this.#missing();
      if (this.#missing() <= 0) this.#full = false;
    }
    if (this.#missing() <= 0) this.#full = false;
  }

  /** Takes blocks up to this offset into account, written. It may be past it already, grown in the middle of a large transaction. */
  async #count(end: number): Promise<void> {
    while (this.#allocated < end) {
      const length = Math.min(zeros.length, end - this.#allocated);
      this.#refresh();
      // Far from where lmdb may be writing at this moment, and in the same turn as it is counted, so that lmdb does not come here meanwhile.
      if (!this.#closed && this.#left() >= this.#wanted() / 4) {
        try {
          writeSync(this.#anywhere, zeros, 0, length, this.#allocated);
        } catch {
          // They are allocated all the same.
        }
      }
      this.#allocated += length;
      await setImmediate();
    }
  }

  #growNow(): boolean {
    const length = this.#missing();
    try {
      if (this.#appends)
        for (let left = length; left > 0; )
          left -= this.#appended(writeSync(this.#fd, zeros, 0, Math.min(left, zeros.length)));
      else fallocate(this.#fd, 0, this.#allocated, length);
    } catch (error) {
      if (!hasErrno(error, ...noSpace)) throw error;
      this.#full = true;
      return this.#left() >= this.#wanted() / 2;
    }
    if (!this.#appends) this.#allocated += length;
    return true;
  }

  async #append(length: number): Promise<void> {
    for (let left = length; left > 0; )
      left -= this.#appended((await writeAsync(this.#fd, zeros.subarray(0, left))).bytesWritten);
  }

  /** All up to the end of the file is written then, whoever has written it. */
  #appended(length: number): number {
    this.#allocated = Math.max(this.#allocated, fstatSync(this.#fd).size);
    return length;
  }

  #refresh(): void {
    this.#shape = this.#look();
    Object.assign(this.#since, this.#unanswered);
  }

  #used(): number {
    return this.#shape.pages * this.#shape.pageSize;
  }

  #left(): number {
    return this.#allocated - this.#used() - this.#promised();
  }

  #missing(): number {
    return this.#used() + this.#promised() + this.#wanted() - this.#allocated;
  }

  /** Of its half that is for updates that add nothing, the largest of these gets through: one that empties the database. */
  #wanted(): number {
    const { treePages, pageSize } = this.#shape;
    return Math.max(this.#size, 2 * (this.#margin() + (2 * treePages + 16) * pageSize));
  }

  /** Kept even from updates that add nothing: lmdb notes which pages are free. */
  #margin(): number {
    return (marginPages + this.#shape.pages / 128) * this.#shape.pageSize;
  }

  /**
   * The most that `#since` can write beyond the last page. A record's change copies the path to it, and its neighbours' when it
   * shrinks; but of all pages each only once in a transaction, and the next one starts when lmdb has answered the last. A
   * put may split a leaf, and one in many a branch.
   */
  #promised(): number {
    const { puts, removes, large } = this.#since;
    if (puts + removes === 0) return 0;
    const { pageSize, treePages, treeDepth } = this.#shape;
    const copies = Math.min((puts + removes) * 2 * (treeDepth + 1), 2 * (treePages + puts));
    return (copies + Math.ceil(puts * 1.125) + 16) * pageSize + large;
  }
}

type Got = 'all' | 'full' | 'unsupported';

async function reserved(allocate: () => Promise<void>): Promise<Got> {
  try {
    await allocate();
    return 'all';
  } catch (error) {
    if (hasErrno(error, ...noSpace)) return 'full';
    if (hasErrno(error, ...notHere)) return 'unsupported';
    throw error;
  }
}

/** lmdb maps its lock file: a hole there would end the process (SIGBUS) when the disk is full. */
async function allocateLock(path: string): Promise<void> {
  const present = statSync(path, { throwIfNoEntry: false });
  // One that lmdb has open here must not be opened and closed: its locks would go.
  if (present && present.size > 0 && present.blocks * 512 >= present.size) return;
  const fd = openSync(path, 'a+', 0o664);
  try {
    if (present === undefined && statfs(fd).type === FS_MAGIC.BTRFS) await withoutCopyOnWrite(fd);
    fallocate(fd, 0, 0, Math.max(lockBytes, present?.size ?? 0));
  } catch (error) {
    if (hasErrno(error, ...noSpace)) throw resourceExhausted(`${path}: no space left on device`, error);
    if (!hasErrno(error, ...notHere)) throw error;
    if (!present?.size) writeSync(fd, Buffer.alloc(lockBytes));
  } finally {
    closeSync(fd);
  }
}

/** FS_IOC_GETFLAGS and FS_IOC_SETFLAGS; takes effect on an empty file only. */
async function withoutCopyOnWrite(fd: number): Promise<void> {
  const flags = Buffer.alloc(8);
  await ioctlAsync(fd, 0x80086601, flags);
  flags.writeUInt32LE(flags.readUInt32LE() | noCopyOnWrite);
  await ioctlAsync(fd, 0x40086602, flags);
}
