import { AT_FDCWD, close, type FileStat, fstatat, hasErrno, O, openat, openat2, RESOLVE, readdirFd } from '@gantry/sys';
import type { SnapshotUsage } from './snapshotter.ts';

const typeMask = 0o170000;
const typeDirectory = 0o040000;
const flags = O.RDONLY | O.DIRECTORY | O.NOFOLLOW;
const resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_XDEV;
/** Bytes of a path below an anchor; the kernel takes 4096 with one more name. */
const longestPath = 2000;

/** An open directory that others are found from: names can nest deeper than a path can be long. */
interface Anchor {
  fd: number;
  /** Directories to be visited that need it. */
  pending: number;
}

/** Disk use of a directory tree: every inode once, its blocks as allocated. Synchronous: for workers. */
export function diskUsage(root: string): SnapshotUsage {
  const usage: SnapshotUsage = { inodes: 0, size: 0 };
  walkInodes(root, ({ blocks }) => {
    usage.inodes++;
    usage.size += Number(blocks) * 512;
  });
  return usage;
}

/**
 * Disk use of what a tree has and the tree that it was snapshotted from has not, where a snapshot keeps the numbers of inodes:
 * an inode is the parent's if number and time of change are. Synchronous: for workers.
 */
export function changedUsage(root: string, parent: string): SnapshotUsage {
  const identity = ({ ino, ctime }: FileStat) => `${ino} ${ctime.seconds}.${ctime.nanos}`;
  const before = new Set<string>();
  walkInodes(parent, (stat) => before.add(identity(stat)));
  const usage: SnapshotUsage = { inodes: 0, size: 0 };
  walkInodes(root, (stat) => {
    if (before.has(identity(stat))) return;
    usage.inodes++;
    usage.size += Number(stat.blocks) * 512;
  });
  return usage;
}

/**
 * Calls back for every inode of a tree once. Walks by open directories, never through a link or into a mount, because a running
 * container may change the tree meanwhile.
 */
function walkInodes(root: string, count: (stat: FileStat) => void): void {
  const seen = new Set<string>();
  const top: Anchor = { fd: openat(AT_FDCWD, root, flags), pending: 1 };
  const anchors = new Set([top]);
  const todo: { anchor: Anchor; path: Buffer }[] = [{ anchor: top, path: Buffer.from('.') }];
  try {
    for (let next = todo.pop(); next; next = todo.pop()) {
      const { anchor, path } = next;
      const fd = openUnlessGone(anchor.fd, path);
      if (fd !== undefined) {
        const own: Anchor = { fd, pending: 0 };
        anchors.add(own);
        count(fstatat(fd, '.'));
        for (const { name } of readdirFd(fd)) {
          const stat = statUnlessGone(fd, name);
          if (!stat) continue;
          if ((stat.mode & typeMask) !== typeDirectory) {
            if (stat.nlink > 1) {
              const identity = `${stat.devMajor}:${stat.devMinor}:${stat.ino}`;
              if (seen.has(identity)) continue;
              seen.add(identity);
            }
            count(stat);
            continue;
          }
          const isFar = path.length + name.length > longestPath;
          const base = isFar ? own : anchor;
          base.pending++;
          todo.push({ anchor: base, path: isFar ? name : Buffer.concat([path, slash, name]) });
        }
        release(own);
      }
      anchor.pending--;
      release(anchor);
    }
  } finally {
    for (const { fd } of anchors) close(fd);
  }

  function release(anchor: Anchor): void {
    if (anchor.pending === 0 && anchors.delete(anchor)) close(anchor.fd);
  }
}

const slash = Buffer.from('/');

/** Undefined for what was removed, replaced by something else, or mounted over while we walked. */
function openUnlessGone(fd: number, path: Buffer): number | undefined {
  try {
    return openat2(fd, path, { flags, resolve });
  } catch (reason) {
    if (hasErrno(reason, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EXDEV')) return undefined;
    throw reason;
  }
}

function statUnlessGone(fd: number, name: Buffer): FileStat | undefined {
  try {
    return fstatat(fd, name);
  } catch (reason) {
    if (hasErrno(reason, 'ENOENT')) return undefined;
    throw reason;
  }
}
