import { lstatSync, type Stats } from 'node:fs';
import { deviceNumbers } from '../spec/device-numbers.ts';
import { inOrderOfDepth } from '../spec/mount-order.ts';
import type { RuntimeSpec, SpecDevice, SpecMount } from '../spec/runtime-spec.ts';
import { linuxOf, processOf, resourcesOf, withEnvironment } from '../spec/spec-options.ts';
import type { ContainerEdits, DeviceNode, IntelRdt } from './cdi-spec.ts';

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
  if (edits.intelRdt) linuxOf(spec).intelRdt = said(edits.intelRdt);
  for (const gid of edits.additionalGids ?? []) {
    const { user } = processOf(spec);
    // The group of root is no more than what the process has anyway.
    if (gid !== 0 && !user.additionalGids?.includes(gid)) user.additionalGids = [...(user.additionalGids ?? []), gid];
  }
}

function addNode(spec: RuntimeSpec, node: DeviceNode): void {
  const { uid, gid } = spec.process?.user ?? { uid: 0, gid: 0 };
  const device: SpecDevice = { path: node.path, ...known(node) };
  // What is nobody's in particular is the process's own.
  if (node.uid !== undefined || uid > 0) device.uid = node.uid ?? uid;
  if (node.gid !== undefined || gid > 0) device.gid = node.gid ?? gid;
  const linux = linuxOf(spec);
  linux.devices = [...(linux.devices ?? []).filter((present) => present.path !== device.path), device];
  if (device.type !== 'b' && device.type !== 'c') return;
  const access = node.permissions ?? 'rwm';
  const resources = resourcesOf(spec);
  resources.devices = [
    ...(resources.devices ?? []),
    { allow: true, type: device.type, major: device.major, minor: device.minor, access },
  ];
}

/**
 * Type, numbers and mode, the host's where the document leaves them out. Only a document that says type and number can do without a
 * device of the host.
 */
function known(node: DeviceNode): Pick<SpecDevice, 'type' | 'major' | 'minor' | 'fileMode'> {
  const { type, major = 0, minor = 0, fileMode } = node;
  const told = type !== undefined && (major !== 0 || type === 'p');
  const file = node.hostPath || node.path;
  const host = hostDevice(file, told);
  const mode = fileMode ?? host?.mode;
  const result = { type: type!, major, minor, ...(mode !== undefined && { fileMode: mode }) };
  if (told || !host) return result;
  if (type !== undefined && type !== host.type) {
    throw new Error(`CDI device ("${node.path}", "${file}"), host type mismatch (${type}, ${host.type})`);
  }
  result.type = host.type;
  return host.type === 'p' || major !== 0 ? result : { ...result, ...host.numbers };
}

/** @throws Error if there is none, unless it may be missing */
function hostDevice(file: string, mayBeMissing: boolean) {
  try {
    const stat = lstatSync(file);
    const type = typeOf(stat);
    if (type === undefined) throw new Error('not a device node');
    return { type, mode: stat.mode & 0o7777, numbers: deviceNumbers(stat.rdev) };
  } catch (reason) {
    if (mayBeMissing) return undefined;
    const { code, message } = reason as NodeJS.ErrnoException;
    const what = code === 'ENOENT' ? 'no such file or directory' : message;
    throw new Error(`failed to stat CDI host device "${file}": ${what}`);
  }
}

function typeOf(stat: Stats): SpecDevice['type'] | undefined {
  if (stat.isBlockDevice()) return 'b';
  if (stat.isCharacterDevice()) return 'c';
  return stat.isFIFO() ? 'p' : undefined;
}

function addMounts(spec: RuntimeSpec, added: NonNullable<ContainerEdits['mounts']>): void {
  let mounts = spec.mounts ?? [];
  for (const { hostPath, containerPath, options = [], type } of added) {
    const mount: SpecMount = { destination: containerPath, source: hostPath };
    if (options.length > 0) mount.options = [...options];
    if (type !== undefined && type !== '') mount.type = type;
    mounts = [...mounts.filter((present) => present.destination !== containerPath), mount];
  }
  spec.mounts = inOrderOfDepth(mounts);
}

/** Without what is empty or off, as in Go's documents. */
function said(rdt: IntelRdt): IntelRdt {
  return Object.fromEntries(Object.entries(rdt).filter(([, value]) => value !== '' && value !== false));
}
