import { lstatSync, type Stats } from 'node:fs';
import path from 'node:path';
import { deviceNumbers } from '../spec/device-numbers.ts';
import type { RuntimeSpec, SpecDevice, SpecMount } from '../spec/runtime-spec.ts';
import { linuxOf, processOf, resourcesOf, withEnvironment } from '../spec/spec-options.ts';
import type { ContainerEdits, DeviceNode } from './cdi-spec.ts';

/** Makes edits in a specification, as the reference implementation does. @throws Error for a device that the host has not */
export function applyEdits(spec: RuntimeSpec, edits: ContainerEdits): void {
  if (edits.env?.length) withEnvironment(spec, edits.env);
  for (const node of edits.deviceNodes ?? []) addNode(spec, node);
  for (const { hostInterfaceName, name } of edits.netDevices ?? []) {
    const linux = linuxOf(spec);
    linux.netDevices = { ...linux.netDevices, [hostInterfaceName]: { name } };
  }
  if (edits.mounts?.length) addMounts(spec, edits.mounts);
  for (const { hookName, ...hook } of edits.hooks ?? []) {
    spec.hooks = { ...spec.hooks, [hookName]: [...(spec.hooks?.[hookName] ?? []), hook] };
  }
  if (edits.intelRdt) linuxOf(spec).intelRdt = { ...edits.intelRdt };
  for (const gid of edits.additionalGids ?? []) {
    const { user } = processOf(spec);
    // The group of root is no more than what the process has anyway.
    if (gid !== 0 && !user.additionalGids?.includes(gid)) user.additionalGids = [...(user.additionalGids ?? []), gid];
  }
}

function addNode(spec: RuntimeSpec, node: DeviceNode): void {
  const { uid, gid } = spec.process?.user ?? { uid: 0, gid: 0 };
  const device: SpecDevice = { path: node.path, ...numbers(node) };
  if (node.fileMode !== undefined) device.fileMode = node.fileMode;
  // What is nobody's in particular is the process's own.
  if (node.uid !== undefined || uid > 0) device.uid = node.uid ?? uid;
  if (node.gid !== undefined || gid > 0) device.gid = node.gid ?? gid;
  const linux = linuxOf(spec);
  linux.devices = [...(linux.devices ?? []).filter((present) => present.path !== device.path), device];
  if (device.type !== 'b' && device.type !== 'c') return;
  const access = node.permissions === 'none' ? '' : (node.permissions ?? 'rwm');
  const resources = resourcesOf(spec);
  resources.devices = [
    ...(resources.devices ?? []),
    { allow: true, type: device.type, major: device.major, minor: device.minor, access },
  ];
}

/** Type and numbers, the host's where the document leaves them out. */
function numbers(node: DeviceNode): Pick<SpecDevice, 'type' | 'major' | 'minor'> {
  const { type, major = 0, minor = 0 } = node;
  if (type !== undefined && (major !== 0 || type === 'p')) return { type, major, minor };
  const file = node.hostPath || node.path;
  const stat = lstatSync(file);
  const found = typeOf(stat);
  if (found === undefined) throw new Error(`${file} is no device node`);
  if (type !== undefined && type !== found) {
    throw new Error(`CDI device ("${node.path}", "${file}"), host type mismatch (${type}, ${found})`);
  }
  if (found === 'p') return { type: found, major, minor };
  return { type: found, ...deviceNumbers(stat.rdev) };
}

function typeOf(stat: Stats): SpecDevice['type'] | undefined {
  if (stat.isBlockDevice()) return 'b';
  if (stat.isCharacterDevice()) return 'c';
  return stat.isFIFO() ? 'p' : undefined;
}

function addMounts(spec: RuntimeSpec, added: NonNullable<ContainerEdits['mounts']>): void {
  let mounts = spec.mounts ?? [];
  // In a user namespace of its own a container would not own what is bound into it.
  const mapped = spec.linux?.namespaces?.some(({ type }) => type === 'user') ?? false;
  for (const { hostPath, containerPath, options = [], type } of added) {
    const mount: SpecMount = { destination: containerPath, source: hostPath, options: [...options] };
    if (type !== undefined && type !== '') mount.type = type;
    const binds = type === 'bind' || options.includes('bind') || options.includes('rbind');
    if (mapped && binds && !options.some((option) => option === 'idmap' || option === 'ridmap')) {
      mount.options!.push('idmap');
    }
    mounts = [...mounts.filter((present) => present.destination !== containerPath), mount];
  }
  const depth = ({ destination }: SpecMount): number => path.normalize(destination).split('/').length;
  // A mount must come after those that it lies in; others keep their order.
  spec.mounts = mounts.toSorted((one, other) => depth(one) - depth(other));
}
