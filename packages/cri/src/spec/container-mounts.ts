import { lstat, mkdir, readFile, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { failedPrecondition, invalidArgument, StatusError } from '@gantry/api';
import { type Mount, MountPropagation } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RuntimeSpec, SpecIdMapping, SpecMount } from '@gantry/oci';
import { hasErrno, lookupMountAsync } from '@gantry/sys';
import type { PodIdMapping } from './user-namespace.ts';

/** Mounts of a container: what the pod gives to all, volumes, and what its own configuration asks for. */

/** A mount as CRI has it, with what the daemon has made of it. */
export interface ContainerMount {
  containerPath: string;
  hostPath: string;
  readonly: boolean;
  recursiveReadonly?: boolean;
  propagation?: MountPropagation;
  uidMappings?: SpecIdMapping[];
  gidMappings?: SpecIdMapping[];
  /** Its files get the container's SELinux label. */
  relabel?: boolean;
}

/** Files and shared memory of the pod, where the configuration has no mount of its own there. */
export async function podMounts(
  asked: readonly Mount[],
  options: { directory: string; shm: string; readonlyRoot: boolean; ids?: PodIdMapping | undefined },
): Promise<ContainerMount[]> {
  const mounts: ContainerMount[] = [];
  const taken = new Set(asked.map(({ containerPath }) => pointOfMount(containerPath)));
  for (const name of ['hostname', 'hosts', 'resolv.conf']) {
    const hostPath = `${options.directory}/${name}`;
    if (taken.has(`/etc/${name}`) || !(await exists(hostPath))) continue;
    mounts.push({
      containerPath: `/etc/${name}`,
      hostPath,
      readonly: options.readonlyRoot,
      relabel: true,
      // They are root's, also inside a pod whose root is another one.
      ...(options.ids && { uidMappings: [options.ids.uid], gidMappings: [options.ids.gid] }),
    });
  }
  // A pod with the host's has none of its own; then a container gets one that nobody shares.
  if (!taken.has('/dev/shm') && (await exists(options.shm)))
    mounts.push({
      containerPath: '/dev/shm',
      hostPath: options.shm,
      readonly: false,
      relabel: options.shm !== '/dev/shm',
    });
  return mounts;
}

async function exists(file: string): Promise<boolean> {
  try {
    await lstat(file);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** What is asked for; a path of the host that is not there becomes a directory. @throws InvalidArgument for mounts that cannot be */
export async function askedMounts(asked: readonly Mount[]): Promise<ContainerMount[]> {
  const mounts: ContainerMount[] = [];
  for (const mount of asked) {
    const { containerPath, hostPath, readonly, recursiveReadOnly, propagation } = mount;
    if (recursiveReadOnly) {
      const at = `(hostPath=${JSON.stringify(hostPath)})`;
      if (!readonly) throw invalidArgument(`recursive read-only mount conflicts with RW mount ${at}`);
      if (propagation !== MountPropagation.PROPAGATION_PRIVATE) {
        const got = `"${MountPropagation[propagation]}"`;
        throw invalidArgument(`recursive read-only mount needs private propagation, got ${got} ${at}`);
      }
    }
    if (containerPath === '' || containerPath.includes('\0')) {
      throw invalidArgument(
        `mount of ${JSON.stringify(hostPath)} at ${JSON.stringify(containerPath)}: invalid argument`,
      );
    }
    mounts.push({
      containerPath: path.isAbsolute(containerPath) ? containerPath : `/${containerPath}`,
      hostPath: await hostPathOf(hostPath),
      readonly,
      recursiveReadonly: recursiveReadOnly,
      propagation,
      relabel: mount.selinuxRelabel && !mount.image,
      uidMappings: mount.uidMappings.map(mapping),
      gidMappings: mount.gidMappings.map(mapping),
    });
  }
  return mounts;
}

const mapping = (map: { containerId: number; hostId: number; length: number }): SpecIdMapping => ({
  containerID: map.containerId,
  hostID: map.hostId,
  size: map.length,
});

/** Where in a container a mount is, whatever way its path is written. */
export function pointOfMount(containerPath: string): string {
  return path.resolve('/', containerPath);
}

async function hostPathOf(hostPath: string): Promise<string> {
  // Relative to what the daemon happens to run in, it would be nobody's.
  if (!path.isAbsolute(hostPath) || hostPath.includes('\0')) {
    throw invalidArgument(`failed to stat ${JSON.stringify(hostPath)}: not an absolute path: invalid argument`);
  }
  try {
    await stat(hostPath);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw StatusError.wrap(error, `failed to stat ${JSON.stringify(hostPath)}`);
    try {
      await mkdir(hostPath, { recursive: true, mode: 0o755 });
    } catch (failure) {
      throw invalidArgument(`failed to mkdir "${hostPath}": ${(failure as Error).message}`, failure);
    }
  }
  return await realpath(hostPath);
}

/** Lays the mounts over those of the specification, those nearer to the root first. */
export async function applyMounts(spec: RuntimeSpec, mounts: readonly ContainerMount[]): Promise<void> {
  const own: SpecMount[] = [];
  for (const mount of mounts) own.push(await specMount(spec, mount));
  const covered = new Set(mounts.map(({ containerPath }) => pointOfMount(containerPath)));
  const rest = (spec.mounts ?? []).filter(
    ({ destination }) => !covered.has(destination) && !(covered.has('/dev') && destination.startsWith('/dev/')),
  );
  const depth = ({ destination }: SpecMount): number => path.normalize(destination).split('/').filter(Boolean).length;
  spec.mounts = [...rest, ...own.sort((a, b) => depth(a) - depth(b))];
}

async function specMount(spec: RuntimeSpec, mount: ContainerMount): Promise<SpecMount> {
  const { containerPath, hostPath, readonly, recursiveReadonly, uidMappings = [], gidMappings = [] } = mount;
  const access = readonly ? (recursiveReadonly ? 'rro' : 'ro') : 'rw';
  return {
    destination: containerPath,
    type: 'bind',
    source: hostPath,
    options: ['rbind', await propagationOption(spec, mount), access],
    ...(uidMappings.length > 0 && { uidMappings }),
    ...(gidMappings.length > 0 && { gidMappings }),
  };
}

/** What the container's root has to be for such mounts to work is set on the way. */
async function propagationOption(spec: RuntimeSpec, { hostPath, propagation }: ContainerMount): Promise<string> {
  spec.linux ??= {};
  const { linux } = spec;
  switch (propagation) {
    case MountPropagation.PROPAGATION_BIDIRECTIONAL:
      if (!(await isShared(hostPath)))
        throw failedPrecondition(
          `path "${hostPath}" is mounted on "${await pointOf(hostPath)}" but it is not a shared mount`,
        );
      linux.rootfsPropagation = 'rshared';
      return 'rshared';
    case MountPropagation.PROPAGATION_HOST_TO_CONTAINER:
      if (!(await isShared(hostPath)) && !(await isSlave(hostPath))) {
        throw failedPrecondition(
          `path "${hostPath}" is mounted on "${await pointOf(hostPath)}" but it is not a shared or slave mount`,
        );
      }
      if (linux.rootfsPropagation !== 'rshared') linux.rootfsPropagation = 'rslave';
      return 'rslave';
    default:
      return 'rprivate';
  }
}

const optional = async (hostPath: string): Promise<readonly string[]> =>
  (await lookupMountAsync(hostPath))?.optional ?? [];
const pointOf = async (hostPath: string): Promise<string> => (await lookupMountAsync(hostPath))?.mountPoint ?? '';
const isShared = async (hostPath: string): Promise<boolean> =>
  (await optional(hostPath)).some((field) => field.startsWith('shared:'));
const isSlave = async (hostPath: string): Promise<boolean> =>
  (await optional(hostPath)).some((field) => field.startsWith('master:'));

/** Whether the kernel knows recursive attributes of mounts (Linux 5.12). */
export async function kernelHasRecursiveReadonly(): Promise<boolean> {
  const [major = 0, minor = 0] = (await readFile('/proc/sys/kernel/osrelease', 'latin1')).split('.').map(Number);
  return major > 5 || (major === 5 && minor >= 12);
}
