import { invalidArgument } from '@gantry/api';
import { type IDMapping, NamespaceMode, type UserNamespace } from '@gantry/api/gen/cri/v1/api_pb.js';
import { SnapshotLabel } from '@gantry/daemon/core/snapshots/snapshot-labels.ts';
import { type RuntimeSpec, type SpecIdMapping, withUserNamespace } from '@gantry/oci';

/** Which ids of the host those of a pod are. */
export interface PodIdMapping {
  uid: SpecIdMapping;
  gid: SpecIdMapping;
}

/** The ids of a pod with a user namespace of its own; undefined for one with the host's. @throws InvalidArgument for what cannot be */
export function podIdMapping(options: UserNamespace | undefined): PodIdMapping | undefined {
  if (!options || options.mode === NamespaceMode.NODE) {
    if (options && (options.uids.length > 0 || options.gids.length > 0)) {
      throw invalidArgument('can\'t use user namespace mode "NODE" with mappings');
    }
    return undefined;
  }
  if (options.mode !== NamespaceMode.POD) {
    throw invalidArgument(`unsupported user namespace mode "${NamespaceMode[options.mode]}"`);
  }
  if (options.uids.length === 0 && options.gids.length === 0) return undefined;
  const uid = single(options.uids, 'UID');
  const gid = single(options.gids, 'GID');
  return { uid, gid };
}

function single(mappings: readonly IDMapping[], kind: string): SpecIdMapping {
  const [first, ...others] = mappings;
  if (!first || others.length > 0)
    throw invalidArgument(`only one ${kind} mapping is supported: ${mappings.length} given`);
  return { containerID: first.containerId, hostID: first.hostId, size: first.length };
}

/** @param hostNetwork whose /sys cannot be mounted in such a namespace, but shown */
export function applyUserNamespace(spec: RuntimeSpec, options: UserNamespace | undefined, hostNetwork: boolean): void {
  const mapping = podIdMapping(options);
  if (!mapping) return;
  withUserNamespace(spec, [mapping.uid], [mapping.gid]);
  if (!hostNetwork) return;
  for (const mount of spec.mounts ?? []) {
    if (mount.destination !== '/sys' || mount.type !== 'sysfs') continue;
    mount.type = 'bind';
    mount.source = '/sys';
    mount.options = ['rbind', ...(mount.options ?? [])];
  }
}

/** Labels by which a snapshotter gives the files of a snapshot to these ids. */
export function snapshotLabels(options: UserNamespace | undefined): Record<string, string> {
  const mapping = podIdMapping(options);
  if (!mapping) return {};
  const text = ({ containerID, hostID, size }: SpecIdMapping): string => `${containerID}:${hostID}:${size}`;
  return { [SnapshotLabel.uidMapping]: text(mapping.uid), [SnapshotLabel.gidMapping]: text(mapping.gid) };
}
