import { invalidArgument } from '@gantry/api';

/** Labels that snapshotters themselves understand, by containerd's names. */
export const SnapshotLabel = {
  /** User ids of the mount, `container:host:size`, several with commas. */
  uidMapping: 'containerd.io/snapshot/uidmapping',
  gidMapping: 'containerd.io/snapshot/gidmapping',
  /** Where an overlay snapshot's own files are; shown with `upperdir_label`. */
  upperDir: 'containerd.io/snapshot/overlay.upperdir',
} as const;

export interface IdMappingLabels {
  uidmap: string;
  gidmap: string;
  /** Who root of the container is on the host. */
  rootUid: number;
  rootGid: number;
}

/** The id mapping in a snapshot's labels; undefined if there is none. @throws InvalidArgument for half of one or a bad one */
export function idMappingOf(labels: Record<string, string>): IdMappingLabels | undefined {
  const uidmap = labels[SnapshotLabel.uidMapping];
  const gidmap = labels[SnapshotLabel.gidMapping];
  if (!uidmap && !gidmap) return undefined;
  if (!uidmap || !gidmap) throw invalidArgument('snapshot labels must map both uids and gids: invalid argument');
  return { uidmap, gidmap, rootUid: hostIdOfRoot(uidmap), rootGid: hostIdOfRoot(gidmap) };
}

function hostIdOfRoot(map: string): number {
  let root: number | undefined;
  for (const range of map.split(',')) {
    const match = /^(\d+):(\d+):(\d+)$/.exec(range);
    if (!match) throw invalidArgument(`invalid id mapping ${JSON.stringify(map)}: invalid argument`);
    if (Number(match[1]) === 0 && Number(match[3]) > 0) root = Number(match[2]);
  }
  if (root === undefined) throw invalidArgument(`id mapping ${JSON.stringify(map)} has no root: invalid argument`);
  return root;
}
