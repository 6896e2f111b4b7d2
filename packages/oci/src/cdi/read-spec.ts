import {
  type CdiDevice,
  type CdiSpec,
  type ContainerEdits,
  type DeviceNode,
  type IntelRdt,
  isEmptyEdits,
} from './cdi-spec.ts';
import { deviceProblem, kindProblem } from './device-name.ts';
import { requiredVersion, versions } from './required-version.ts';
import { Shape } from './shape.ts';

const hookNames = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'];

/** What is of 32 bits. */
const largestId = 2 ** 32 - 1;

/** A parsed document as a specification. @throws Error that says where it is not one */
export function readSpec(document: unknown): CdiSpec {
  const top = new Shape(document);
  const { cdiVersion, kind, annotations, devices, containerEdits } = top.object([
    'cdiVersion',
    'kind',
    'annotations',
    'devices',
    'containerEdits',
  ]);
  const version = (cdiVersion?.string() ?? '').replace(/^v/, '');
  if (!versions.includes(version)) top.fail(`invalid version ${JSON.stringify(version)}`);
  const name = kind?.string() ?? '';
  const [vendor = '', kindClass = ''] = /^([^/]+)\/(.+)$/s.exec(name)?.slice(1) ?? [];
  const problem = kindProblem('vendor', vendor) ?? kindProblem('class', kindClass);
  if (problem !== undefined) top.fail(`kind ${JSON.stringify(name)}: ${problem}`);
  const spec: CdiSpec = {
    cdiVersion: version,
    kind: name,
    devices: devices?.list().map(readDevice) ?? [],
    ...(annotations && { annotations: annotations.map((value) => value.string()) }),
    ...(containerEdits && { containerEdits: readEdits(containerEdits) }),
  };
  if (spec.devices.length === 0) top.fail('invalid spec, no devices');
  const names = new Set<string>();
  for (const device of spec.devices) {
    if (names.has(device.name)) top.fail(`invalid spec, multiple device ${JSON.stringify(device.name)}`);
    names.add(device.name);
  }
  const needed = requiredVersion(spec);
  if (versions.indexOf(needed) > versions.indexOf(version)) {
    top.fail(`the spec version must be at least v${needed}, for what it uses`);
  }
  return spec;
}

function readDevice(shape: Shape): CdiDevice {
  const { name, annotations, containerEdits } = shape.object(['name', 'annotations', 'containerEdits']);
  const device: CdiDevice = {
    name: name?.string() ?? '',
    ...(annotations && { annotations: annotations.map((value) => value.string()) }),
    containerEdits: containerEdits ? readEdits(containerEdits) : {},
  };
  const problem = deviceProblem(device.name);
  if (problem !== undefined) shape.fail(problem);
  if (isEmptyEdits(device.containerEdits))
    shape.fail(`invalid device ${JSON.stringify(device.name)}, empty device edits`);
  return device;
}

function readEdits(shape: Shape): ContainerEdits {
  const { env, deviceNodes, netDevices, hooks, mounts, intelRdt, additionalGids } = shape.object([
    'env',
    'deviceNodes',
    'netDevices',
    'hooks',
    'mounts',
    'intelRdt',
    'additionalGids',
  ]);
  return {
    ...(env && { env: env.list().map(readVariable) }),
    ...(deviceNodes && { deviceNodes: deviceNodes.list().map(readNode) }),
    ...(netDevices && { netDevices: readNetDevices(netDevices) }),
    ...(hooks && { hooks: hooks.list().map(readHook) }),
    ...(mounts && { mounts: mounts.list().map(readMount) }),
    ...(intelRdt && { intelRdt: readIntelRdt(intelRdt) }),
    ...(additionalGids && { additionalGids: additionalGids.list().map((gid) => gid.count(largestId)) }),
  };
}

function readVariable(shape: Shape): string {
  const text = shape.string();
  return text.indexOf('=') > 0 ? text : shape.fail(`invalid environment variable ${JSON.stringify(text)}`);
}

function readNode(shape: Shape): DeviceNode {
  const known = ['path', 'hostPath', 'type', 'major', 'minor', 'fileMode', 'permissions', 'uid', 'gid'];
  const { path, hostPath, type, major, minor, fileMode, permissions, uid, gid } = shape.object(known);
  const kind = type?.string() ?? '';
  if (!['', 'b', 'c', 'u', 'p'].includes(kind)) type!.fail(`invalid type ${JSON.stringify(kind)}`);
  const access = permissions?.string() ?? '';
  if (!/^[rwm]*$/.test(access)) permissions!.fail(`invalid permissions ${JSON.stringify(access)}`);
  return {
    path: path?.text() ?? shape.fail('invalid (empty) device path'),
    ...(hostPath && { hostPath: hostPath.string() }),
    ...(kind !== '' && { type: kind as NonNullable<DeviceNode['type']> }),
    ...(major && { major: major.count() }),
    ...(minor && { minor: minor.count() }),
    ...(fileMode && { fileMode: fileMode.count(largestId) }),
    ...(access !== '' && { permissions: access }),
    ...(uid && { uid: uid.count(largestId) }),
    ...(gid && { gid: gid.count(largestId) }),
  };
}

function readNetDevices(shape: Shape): NonNullable<ContainerEdits['netDevices']> {
  const devices = shape.list().map((one) => {
    const { hostInterfaceName, name } = one.object(['hostInterfaceName', 'name']);
    return {
      hostInterfaceName: hostInterfaceName?.text() ?? one.fail('empty hostInterfaceName'),
      name: name?.text() ?? one.fail('empty name'),
    };
  });
  for (const key of ['hostInterfaceName', 'name'] as const) {
    const values = devices.map((device) => device[key]);
    const twice = values.find((value, index) => values.indexOf(value) !== index);
    if (twice !== undefined) shape.fail(`duplicate ${key} ${JSON.stringify(twice)}`);
  }
  return devices;
}

function readHook(shape: Shape): NonNullable<ContainerEdits['hooks']>[number] {
  const { hookName, path, args, env, timeout } = shape.object(['hookName', 'path', 'args', 'env', 'timeout']);
  const name = hookName?.string() ?? '';
  if (!hookNames.includes(name)) shape.fail(`invalid hook name ${JSON.stringify(name)}`);
  return {
    hookName: name,
    path: path?.text() ?? shape.fail(`invalid hook ${JSON.stringify(name)} with empty path`),
    ...(args && { args: args.list().map((arg) => arg.string()) }),
    ...(env && { env: env.list().map(readVariable) }),
    ...(timeout && { timeout: timeout.count() }),
  };
}

function readMount(shape: Shape): NonNullable<ContainerEdits['mounts']>[number] {
  const { hostPath, containerPath, options, type } = shape.object(['hostPath', 'containerPath', 'options', 'type']);
  return {
    hostPath: hostPath?.text() ?? shape.fail('invalid mount, empty host path'),
    containerPath: containerPath?.text() ?? shape.fail('invalid mount, empty container path'),
    ...(options && { options: options.list().map((option) => option.string()) }),
    ...(type && { type: type.string() }),
  };
}

function readIntelRdt(shape: Shape): IntelRdt {
  const texts = ['closID', 'l3CacheSchema', 'memBwSchema'] as const;
  const switches = ['enableCMT', 'enableMBM', 'enableMonitoring'] as const;
  const members = shape.object([...texts, ...switches, 'schemata']);
  const rdt: IntelRdt = {};
  for (const name of texts) if (members[name]) rdt[name] = members[name].string();
  for (const name of switches) if (members[name]) rdt[name] = members[name].boolean();
  if (members.schemata) rdt.schemata = members.schemata.list().map((line) => line.string());
  const { closID = '' } = rdt;
  // It becomes a directory of resctrl; "/" is the root one.
  if (closID !== '/' && (closID.length >= 4096 || closID === '.' || closID === '..' || /[/\n]/.test(closID))) {
    shape.fail('invalid ClosID');
  }
  return rdt;
}
