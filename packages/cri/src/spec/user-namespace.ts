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
  const uid = single(options.uids, 'uid');
  const gid = single(options.gids, 'gid');
  return { uid, gid };
}

function single(mappings: readonly IDMapping[], kind: string): SpecIdMapping {
  const [first, ...others] = mappings;
  if (!first || others.length > 0)
    throw invalidArgument(`required only one ${kind} mapping, but got ${mappings.length} ${kind} mapping(s)`);
  return { containerID: first.containerId, hostID: first.hostId, size: first.length };
}

/**
 * A container has its pod's user namespace or, with its pod, the machine's: one with other ids in a pod with a namespace of its own would
 * be root of the machine. @throws InvalidArgument if they differ
 */
export function requireSameIds(pod: UserNamespace | undefined, container: UserNamespace | undefined): void {
  const [ofPod, ofContainer] = [pod, container].map((options) => told(podIdMapping(options)));
  if (ofPod === ofContainer) return;
  throw invalidArgument(
    `user namespace config for sandbox is different from container. Sandbox userns config: ${ofPod} - Container userns config: ${ofContainer}`,
  );
}

function told(ids: PodIdMapping | undefined): string {
  if (!ids) return '<nil>';
  const text = ({ containerID, hostID, size }: SpecIdMapping): string =>
    [
      ...(containerID === 0 ? [] : [`container_id:${containerID}`]),
      ...(hostID === 0 ? [] : [`host_id:${hostID}`]),
      `length:${size}`,
    ].join(' ');
  return `uids:{${text(ids.uid)}} gids:{${text(ids.gid)}}`;
}

/** @param hostNetwork whose /sys cannot be mounted in such a namespace, but shown */
export function applyUserNamespace(spec: RuntimeSpec, options: UserNamespace | undefined, hostNetwork: boolean): void {
  const mapping = podIdMapping(options);
  if (!mapping) return;
  withUserNamespace(spec, [mapping.uid], [mapping.gid]);
  if (!hostNetwork) return;
  spec.mounts = (spec.mounts ?? []).map((mount) =>
    mount.destination === '/sys' && mount.type === 'sysfs'
      ? { destination: '/sys', type: 'bind', source: '/sys', options: ['rbind', 'rro', 'nosuid', 'nodev', 'noexec'] }
      : mount,
  );
}

/** Labels by which a snapshotter gives the files of a snapshot to these ids. */
export function snapshotLabels(options: UserNamespace | undefined): Record<string, string> {
  const mapping = podIdMapping(options);
  if (!mapping) return {};
  const text = ({ containerID, hostID, size }: SpecIdMapping): string => `${containerID}:${hostID}:${size}`;
  return { [SnapshotLabel.uidMapping]: text(mapping.uid), [SnapshotLabel.gidMapping]: text(mapping.gid) };
}
