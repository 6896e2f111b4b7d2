import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** Why no btrfs filesystem can be made here, if it cannot. */
export function missingBtrfs(): string | false {
  if (process.getuid?.() !== 0) return 'mounting needs root';
  try {
    execFileSync('mkfs.btrfs', ['--version'], { stdio: 'ignore' });
  } catch {
    return 'mkfs.btrfs is not installed';
  }
  return execFileSync('cat', ['/proc/filesystems'], { encoding: 'utf8' }).includes('btrfs')
    ? false
    : 'the kernel has no btrfs';
}

/** A btrfs filesystem in a file, mounted by a loop device. `remove` unmounts and deletes it. */
export function makeBtrfs(): { directory: string; remove(): void } {
  const top = mkdtempSync(path.join(tmpdir(), 'gantry-btrfs-'));
  const image = path.join(top, 'image');
  const directory = path.join(top, 'mnt');
  writeFileSync(image, '');
  truncateSync(image, 1 << 30);
  execFileSync('mkfs.btrfs', ['-q', image]);
  mkdirSync(directory);
  execFileSync('mount', ['-o', 'loop', image, directory]);
  return {
    directory,
    remove() {
      execFileSync('umount', ['--recursive', directory]);
      rmSync(top, { recursive: true });
    },
  };
}
