import type { ImageConfig } from '../image.ts';
import { defaultPath } from './default-spec.ts';
import type {
  RuntimeSpec,
  SpecCapabilities,
  SpecDevice,
  SpecLinux,
  SpecMount,
  SpecNamespace,
  SpecProcess,
  SpecResources,
} from './runtime-spec.ts';

/** Changes of a spec, one concern each, to be applied in order. They change the spec they are given. */

export function processOf(spec: RuntimeSpec): SpecProcess {
  spec.process ??= { user: { uid: 0, gid: 0 }, cwd: '/' };
  return spec.process;
}

export function linuxOf(spec: RuntimeSpec): SpecLinux {
  spec.linux ??= {};
  return spec.linux;
}

export function resourcesOf(spec: RuntimeSpec): SpecResources {
  const linux = linuxOf(spec);
  linux.resources ??= {};
  return linux.resources;
}

/** Environment, arguments and directory of an image's config; `args`, if any, replace its command but keep its entrypoint. */
export function withImageConfig(spec: RuntimeSpec, config: ImageConfig['config'], args: readonly string[] = []): void {
  const process = processOf(spec);
  const defaults = config?.Env ?? [];
  process.env = replaceEnvironment(defaults.length > 0 ? defaults : [defaultPath], process.env ?? []);
  const command = args.length > 0 ? args : (config?.Cmd ?? []);
  process.args = [...(config?.Entrypoint ?? []), ...command];
  process.cwd = config?.WorkingDir || '/';
}

/**
 * Sets variables: `KEY=value` replaces or adds, a bare `KEY` removes. The order of those present is kept.
 */
export function replaceEnvironment(present: readonly string[], changes: readonly string[]): string[] {
  const result = [...present];
  for (const change of changes) {
    const at = change.indexOf('=');
    const name = at < 0 ? change : change.slice(0, at);
    const index = result.findIndex((line) => line.startsWith(`${name}=`));
    if (at < 0) {
      if (index >= 0) result.splice(index, 1);
    } else if (index >= 0) result[index] = change;
    else result.push(change);
  }
  return result;
}

export function withEnvironment(spec: RuntimeSpec, changes: readonly string[]): void {
  const process = processOf(spec);
  process.env = replaceEnvironment(process.env ?? [], changes);
}

/** A terminal, with the variable that programs look for. */
export function withTerminal(spec: RuntimeSpec): void {
  const process = processOf(spec);
  process.terminal = true;
  process.env = replaceEnvironment(process.env ?? [], ['TERM=xterm']);
}

export function withMounts(spec: RuntimeSpec, mounts: readonly SpecMount[]): void {
  spec.mounts = [...(spec.mounts ?? []), ...mounts];
}

/** Takes a namespace out: the container shares the host's. */
export function withHostNamespace(spec: RuntimeSpec, type: SpecNamespace['type']): void {
  const linux = linuxOf(spec);
  linux.namespaces = (linux.namespaces ?? []).filter((namespace) => namespace.type !== type);
}

/** Adds or replaces a namespace, by a path to join or (without one) a new one. */
export function withNamespace(spec: RuntimeSpec, namespace: SpecNamespace): void {
  const linux = linuxOf(spec);
  const others = linux.namespaces ?? [];
  const index = others.findIndex((other) => other.type === namespace.type);
  if (index >= 0) others[index] = namespace;
  else others.push(namespace);
  linux.namespaces = others;
}

/** The host's network, with its hosts and resolv.conf. */
export function withHostNetwork(spec: RuntimeSpec): void {
  withHostNamespace(spec, 'network');
  for (const file of ['/etc/hosts', '/etc/resolv.conf']) {
    withMounts(spec, [{ destination: file, type: 'bind', source: file, options: ['rbind', 'ro'] }]);
  }
}

export function withUserNamespace(
  spec: RuntimeSpec,
  uidMappings: NonNullable<SpecLinux['uidMappings']>,
  gidMappings: NonNullable<SpecLinux['gidMappings']>,
): void {
  withNamespace(spec, { type: 'user' });
  const linux = linuxOf(spec);
  linux.uidMappings = [...(linux.uidMappings ?? []), ...uidMappings];
  linux.gidMappings = [...(linux.gidMappings ?? []), ...gidMappings];
}

const capabilitySets = ['bounding', 'effective', 'permitted'] as const;

/** Replaces the three sets that count. */
export function withCapabilities(spec: RuntimeSpec, names: readonly string[]): void {
  const process = processOf(spec);
  process.capabilities = { ...process.capabilities };
  for (const set of capabilitySets) process.capabilities[set] = [...names];
}

function eachCapabilitySet(spec: RuntimeSpec, change: (set: string[]) => string[]): void {
  const process = processOf(spec);
  const capabilities: SpecCapabilities = { ...process.capabilities };
  for (const set of capabilitySets) capabilities[set] = change(capabilities[set] ?? []);
  process.capabilities = capabilities;
}

export function withAddedCapabilities(spec: RuntimeSpec, names: readonly string[]): void {
  eachCapabilitySet(spec, (set) => [...set, ...names.filter((name) => !set.includes(name))]);
}

export function withDroppedCapabilities(spec: RuntimeSpec, names: readonly string[]): void {
  eachCapabilitySet(spec, (set) => set.filter((name) => !names.includes(name)));
}

/**
 * A privileged container: all given capabilities, no masked or read-only paths, a writable /sys, every device allowed,
 * no new-privileges bar, no seccomp, AppArmor or SELinux.
 */
export function withPrivileged(spec: RuntimeSpec, capabilities: readonly string[]): void {
  withCapabilities(spec, capabilities);
  const linux = linuxOf(spec);
  delete linux.maskedPaths;
  delete linux.readonlyPaths;
  delete linux.seccomp;
  for (const mount of spec.mounts ?? []) {
    if (mount.type === 'sysfs' || mount.type === 'cgroup') {
      mount.options = (mount.options ?? []).map((option) => (option === 'ro' ? 'rw' : option));
    }
  }
  const process = processOf(spec);
  delete process.noNewPrivileges;
  delete process.apparmorProfile;
  delete process.selinuxLabel;
  resourcesOf(spec).devices = [{ allow: true, access: 'rwm' }];
}

/** Gives a device of the host to the container, with the right to use it. */
export function withDevice(spec: RuntimeSpec, device: SpecDevice, access = 'rwm'): void {
  const linux = linuxOf(spec);
  linux.devices = [...(linux.devices ?? []), device];
  const resources = resourcesOf(spec);
  resources.devices = [
    ...(resources.devices ?? []),
    { allow: true, type: device.type, major: device.major, minor: device.minor, ...(access !== '' && { access }) },
  ];
}
