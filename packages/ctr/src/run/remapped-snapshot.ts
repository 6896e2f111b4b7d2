// Images for containers whose user ids are mapped, by changing the owners of all files once: where nobody else does the mapping.
import { createHash } from 'node:crypto';
import { chmodSync, lchownSync, lstatSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { Snapshots } from '@gantry/client';
import { withTempMount } from '@gantry/mount';
import type { SpecIdMapping } from '@gantry/oci';

export interface IdMappings {
  uids: readonly SpecIdMapping[];
  gids: readonly SpecIdMapping[];
}

/** The host's id for one of the container. @throws Error for one that is not mapped */
export function toHost(id: number, mappings: readonly SpecIdMapping[]): number {
  for (const { containerID, hostID, size } of mappings)
    if (id >= containerID && id < containerID + size) return hostID + id - containerID;
  throw new Error(`container ID ${id} cannot be mapped to a host ID`);
}

/** The name of an image's snapshot with these mappings: containerd's clients give it the same, so that it is made once. */
export function remappedName(parent: string, { uids, gids }: IdMappings): string {
  const plain = (mappings: readonly SpecIdMapping[]) =>
    [...mappings]
      .sort((a, b) => a.containerID - b.containerID)
      .map(({ containerID, hostID, size }) => ({ containerID, hostID, size }));
  const text = JSON.stringify({ Parent: parent, IDMap: { UidMap: plain(uids), GidMap: plain(gids) } });
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}

/** Makes that snapshot if it is not there. @returns its name */
export async function remappedSnapshot(snapshots: Snapshots, parent: string, mappings: IdMappings): Promise<string> {
  const name = remappedName(parent, mappings);
  for await (const { name: present } of snapshots.list([`name==${name}`])) if (present === name) return name;
  const key = `${name}-remap`;
  const mounts = await snapshots.prepare(key, parent);
  try {
    await withTempMount(
      mounts.map(({ type, source, target, options }) => ({ type, source, target, options: [...options] })),
      tmpdir(),
      async (root) => changeOwners(Buffer.from(root), mappings, new Set()),
    );
    await snapshots.commit(name, key);
    return name;
  } catch (reason) {
    await snapshots.remove(key).catch(() => undefined);
    throw reason;
  }
}

/** Nobody else sees the tree yet, so names stay what they are while it is walked; links are changed themselves. */
function changeOwners(file: Buffer, mappings: IdMappings, seen: Set<bigint>): void {
  const stat = lstatSync(file, { bigint: true });
  // A file of several names is met as often.
  if (!stat.isDirectory() && stat.nlink > 1n) {
    if (seen.has(stat.ino)) return;
    seen.add(stat.ino);
  }
  lchownSync(file, toHost(Number(stat.uid), mappings.uids), toHost(Number(stat.gid), mappings.gids));
  const mode = Number(stat.mode & 0o7777n);
  // The kernel takes the set-id bits off a file that changes its owner.
  if (stat.isFile() && (mode & 0o6000) !== 0) chmodSync(file, mode);
  if (!stat.isDirectory()) return;
  const slash = Buffer.from('/');
  for (const name of readdirSync(file, { encoding: 'buffer' }))
    changeOwners(Buffer.concat([file, slash, name]), mappings, seen);
}
