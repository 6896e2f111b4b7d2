import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, rmSync, truncateSync } from 'node:fs';
import path from 'node:path';
import { ioctlFiClone } from '@gantry/sys';

/** File systems that a daemon's root may lie on here, with the programs that make and check them. */
export const diskKinds = {
  // Commits to the journal only when somebody asks: what nobody has synced is lost by the cut, however long ago it was written.
  ext4: { make: ['mkfs.ext4', '-q', '-F', '-m', '0'], options: 'commit=600', check: ['e2fsck', '-p'] },
  btrfs: { make: ['mkfs.btrfs', '-q', '-f'], options: 'commit=600', check: ['btrfs', 'check', '-p'] },
} as const;
export type DiskKind = keyof typeof diskKinds;

const size = 3 * 2 ** 30;

/**
 * A disk whose power can be cut: a file system in a loop-mounted file, which lies on another that can share blocks. A clone of the
 * file is what had reached the disk at that moment, without what the kernel still kept in memory for the file system upon it.
 */
export class PowerDisk {
  readonly #directory: string;
  readonly #kind: DiskKind;
  #cuts = 0;

  /** Makes it beneath a directory and mounts it. */
  static create(directory: string, mountPoint: string, kind: DiskKind): PowerDisk {
    const below = path.join(directory, 'below');
    const image = `${below}.img`;
    mkdirSync(below, { recursive: true });
    mkdirSync(mountPoint, { recursive: true });
    sparse(image, 4 * size);
    execFileSync('mkfs.btrfs', ['-q', '-f', image]);
    execFileSync('mount', ['-o', 'loop,commit=600', image, below]);
    const disk = new PowerDisk(below, kind);
    const file = path.join(below, 'disk');
    sparse(file, size);
    const [program, ...options] = diskKinds[kind].make;
    execFileSync(program, [...options, file]);
    disk.mount(file, mountPoint);
    return disk;
  }

  private constructor(directory: string, kind: DiskKind) {
    this.#directory = directory;
    this.#kind = kind;
  }

  /** The disk as it is at this moment, as a file of its own. Synchronous: nothing of this process happens meanwhile. */
  cut(): string {
    const copy = path.join(this.#directory, `cut-${++this.#cuts}`);
    const from = openSync(path.join(this.#directory, 'disk'), 'r');
    try {
      const to = openSync(copy, 'wx');
      try {
        ioctlFiClone(to, from);
      } finally {
        closeSync(to);
      }
    } finally {
      closeSync(from);
    }
    return copy;
  }

  /** Power is back: the file system recovers, as at boot, and is mounted. */
  mount(file: string, mountPoint: string): void {
    const { check, options } = diskKinds[this.#kind];
    if (existsSync(mountPoint)) rmSync(mountPoint, { recursive: true });
    mkdirSync(mountPoint, { recursive: true });
    // btrfs needs no check before a mount, and its journal is replayed by that.
    if (this.#kind === 'ext4') {
      const [program, ...rest] = check;
      // 1: it has repaired something, which is what a journal is for.
      runAllowing([0, 1], program, [...rest, file]);
    }
    execFileSync('mount', ['-t', this.#kind, '-o', `loop,${options}`, file, mountPoint]);
  }

  /** Unmounts a cut and throws it away. */
  discard(file: string, mountPoint: string): void {
    execFileSync('umount', [mountPoint]);
    rmSync(file);
  }
}

function sparse(file: string, bytes: number): void {
  closeSync(openSync(file, 'wx'));
  truncateSync(file, bytes);
}

function runAllowing(codes: readonly number[], program: string, args: readonly string[]): void {
  try {
    execFileSync(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    if (!codes.includes((error as { status?: number }).status ?? -1)) throw error;
  }
}
