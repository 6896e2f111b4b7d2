import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { invalidArgument } from '@gantry/api';
import { AT, AT_FDCWD, close, fstatat, hasErrno, O, openat, S, setxattr } from '@gantry/sys';

/** Directories that are not one container's: their files stay as they are. */
const everybodys = new Set([
  '/',
  '/bin',
  '/boot',
  '/dev',
  '/etc',
  '/etc/passwd',
  '/etc/pki',
  '/etc/shadow',
  '/home',
  '/lib',
  '/lib64',
  '/media',
  '/opt',
  '/proc',
  '/root',
  '/run',
  '/sbin',
  '/srv',
  '/sys',
  '/tmp',
  '/usr',
  '/var',
  '/var/lib',
  '/var/log',
]);

const attribute = 'security.selinux';

/**
 * Gives a file, or a directory and all beneath it, a label; links are labelled and not followed. File systems without labels stay without.
 * @throws InvalidArgument for what is the whole machine's
 */
export async function relabel(
  file: string,
  label: string,
  set: (opened: string, value: Buffer) => void = (opened, value) => setxattr(opened, attribute, value),
): Promise<void> {
  if (label === '') return;
  if (everybodys.has(path.resolve(file))) {
    throw invalidArgument(`relabel "${file}" with "${label}" failed: SELinux relabeling of ${file} is not allowed`);
  }
  const value = Buffer.from(`${label}\0`);
  const give = async (directory: number, name: string): Promise<void> => {
    const fd = openat(directory, name, O.PATH | O.NOFOLLOW);
    try {
      const opened = `/proc/self/fd/${fd}`;
      set(opened, value);
      if ((fstatat(fd, '', AT.EMPTY_PATH).mode & S.IFMT) !== S.IFDIR) return;
      for (const entry of await readdir(opened, 'latin1')) {
        // What goes meanwhile needs no label.
        await give(fd, Buffer.from(entry, 'latin1') as unknown as string).catch((error) => {
          if (!hasErrno(error, 'ENOENT')) throw error;
        });
      }
    } finally {
      close(fd);
    }
  };
  try {
    await give(AT_FDCWD, file);
  } catch (error) {
    if (!hasErrno(error, 'ENOTSUP', 'EOPNOTSUPP')) throw error;
  }
}
