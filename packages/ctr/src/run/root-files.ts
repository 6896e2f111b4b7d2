// Small files of a root filesystem that is not trusted: its links are followed as if it were the whole filesystem.
import { lstatSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Client, Mount } from '@gantry/client';
import { withActivatedMounts } from '../activate.ts';
import type { FileReader } from './user.ts';

/** Larger files are none of users or groups. */
const sizeLimit = 16 << 20;

/** Where a path leads inside a root; undefined if nowhere. @throws Error for a loop of links */
export function resolveInRoot(root: string, inside: string): string | undefined {
  let rest = inside.split('/').filter((part) => part !== '' && part !== '.');
  let done: string[] = [];
  for (let steps = 0; rest.length > 0; steps++) {
    if (steps > 255) throw new Error(`${inside}: too many links`);
    const part = rest.shift()!;
    if (part === '..') {
      done.pop();
      continue;
    }
    const here = path.join(root, ...done, part);
    const stat = lstatSync(here, { throwIfNoEntry: false });
    if (!stat) return undefined;
    if (!stat.isSymbolicLink()) {
      done.push(part);
      continue;
    }
    const target = readlinkSync(here);
    if (target.startsWith('/')) done = [];
    rest = [...target.split('/').filter((piece) => piece !== '' && piece !== '.'), ...rest];
  }
  return path.join(root, ...done);
}

/** Reads files beneath a directory. */
export function readerOf(root: string): FileReader {
  return (inside) => {
    const file = resolveInRoot(root, inside);
    if (file === undefined) return undefined;
    const stat = statSync(file);
    return stat.isFile() && stat.size <= sizeLimit ? readFileSync(file, 'utf8') : undefined;
  };
}

/** Gives a look at a snapshot's files: mounted read-only for as long as `look` takes. */
export async function withSnapshotFiles<T>(
  client: Client,
  snapshotter: string,
  key: string,
  look: (read: FileReader) => T,
): Promise<T> {
  const mounts: Mount[] = await client.snapshots(snapshotter).mounts(key);
  const [only] = mounts;
  // One directory needs no mounting.
  if (mounts.length === 1 && only?.type === 'bind' && !only.target) return look(readerOf(only.source));
  const { readonlyMounts, withTempMount } = await import('@gantry/mount');
  return withActivatedMounts(client, mounts, (system) =>
    withTempMount(readonlyMounts(system), tmpdir(), async (root) => look(readerOf(root))),
  );
}
