// The runtime spec of a container, from an image's config and the flags of `run` and `containers create`.
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import {
  defaultSeccomp,
  defaultSpec,
  effectiveCapabilities,
  type ImageConfig,
  linuxOf,
  parseJson,
  processOf,
  type RuntimeSpec,
  resourcesOf,
  type SpecIdMapping,
  type SpecNamespace,
  type SpecSeccomp,
  withAddedCapabilities,
  withDevice,
  withDroppedCapabilities,
  withEnvironment,
  withHostNetwork,
  withImageConfig,
  withMounts,
  withNamespace,
  withPrivileged,
  withTerminal,
  withUserNamespace,
} from '@gantry/oci';
import { CdiDirectories } from '@gantry/oci/cdi/cdi-directories.ts';
import { isDeviceName } from '@gantry/oci/cdi/device-name.ts';
import type { Invocation } from '../command.ts';
import { parseLabels } from '../units.ts';
import { loadDefaultProfile } from './apparmor.ts';
import { blockIoOfClass } from './block-io.ts';
import { hostDevice, hostDevices } from './devices.ts';
import { gpuDevices } from './gpus.ts';
import { parseMount } from './mount-flag.ts';
import { orderSpec } from './spec-order.ts';
import { additionalGroups, type FileReader, lookUpUser } from './user.ts';

/** Where a container's files come from. */
export type RootSource = { kind: 'directory'; path: string } | { kind: 'image'; config: ImageConfig };

/** Gives a look at the container's files, which are made when they are first wanted. */
export type FilesAccess = <T>(look: (read: FileReader) => T) => Promise<T>;

/** @throws Error for flags that say nothing sensible, and for users that the container does not know */
export async function specFromFlags(
  invocation: Invocation,
  names: { namespace: string; id: string },
  root: RootSource,
  args: readonly string[],
  files: FilesAccess,
): Promise<RuntimeSpec> {
  const spec = defaultSpec(names.namespace, names.id);
  const envFile = invocation.string('env-file');
  if (envFile) withEnvironment(spec, environmentLines(readFileSync(envFile, 'utf8')));
  withEnvironment(spec, invocation.strings('env'));
  withMounts(spec, invocation.strings('mount').map(parseMount));
  await fillRoot(spec, invocation, root, args, files);
  if (invocation.bool('tty')) withTerminal(spec);
  if (invocation.bool('privileged')) {
    withPrivileged(spec, effectiveCapabilities(readFileSync('/proc/self/status', 'utf8')));
    // Unlike other clients' notion of privileged, this bar stays until --allow-new-privs takes it away.
    processOf(spec).noNewPrivileges = true;
    if (!invocation.bool('privileged-without-host-devices')) linuxOf(spec).devices = hostDevices('/dev');
  }
  if (invocation.bool('net-host')) {
    withHostNetwork(spec);
    withEnvironment(spec, [`HOSTNAME=${hostname()}`]);
  }
  // Labels are told to the runtime as well.
  const annotations = parseLabels([...invocation.strings('label'), ...invocation.strings('annotation')]);
  if (Object.keys(annotations).length > 0) spec.annotations = annotations;
  protect(spec, invocation);
  limit(spec, invocation);
  for (const text of invocation.strings('with-ns')) withNamespace(spec, parseNamespace(text));
  mapIds(spec, invocation);
  if (invocation.isSet('cgroup')) linuxOf(spec).cgroupsPath = invocation.string('cgroup');
  const name = invocation.string('hostname');
  if (name) spec.hostname = name;
  const devices = invocation.strings('device');
  for (const device of devices) if (!isDeviceName(device)) addDevice(spec, device);
  const cdi = new CdiDirectories(undefined, (file, problem) => console.error(`ctr: ${file}: ${problem}`));
  const gpus = invocation.strings('gpus');
  const named = devices.filter(isDeviceName);
  await cdi.inject(spec, gpus.length > 0 ? [...named, ...gpuDevices(await cdi.list(), gpus)] : named);
  const blockIo = await blockIoOfClass(invocation.string('blockio-config-file'), invocation.string('blockio-class'));
  if (blockIo) resourcesOf(spec).blockIO = blockIo;
  const propagation = invocation.string('rootfs-propagation');
  if (propagation) linuxOf(spec).rootfsPropagation = propagation;
  return orderSpec(spec);
}

async function fillRoot(
  spec: RuntimeSpec,
  invocation: Invocation,
  root: RootSource,
  args: readonly string[],
  files: FilesAccess,
): Promise<void> {
  const process = processOf(spec);
  let user = '';
  if (root.kind === 'directory') {
    spec.root = { path: root.path };
    withImageConfig(spec, undefined, args);
  } else {
    withImageConfig(spec, root.config.config, args);
    user = root.config.config?.User ?? '';
    if ((process.args ?? []).length === 0) throw new Error('no arguments specified');
    await setUser(spec, user, files);
  }
  if (invocation.bool('read-only')) spec.root = { path: 'rootfs', ...spec.root, readonly: true };
  const cwd = invocation.string('cwd');
  if (cwd) process.cwd = cwd;
  const wanted = invocation.string('user');
  if (wanted) await setUser(spec, wanted, files);
}

async function setUser(spec: RuntimeSpec, user: string, files: FilesAccess): Promise<void> {
  const process = processOf(spec);
  await files((read) => {
    if (user !== '') process.user = { ...process.user, ...lookUpUser(user, read) };
    process.user = { ...process.user, additionalGids: additionalGroups(user || 'root', process.user.gid, read) };
  });
}

function environmentLines(text: string): string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trimStart())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

function protect(spec: RuntimeSpec, invocation: Invocation): void {
  const process = processOf(spec);
  if (invocation.bool('allow-new-privs')) delete process.noNewPrivileges;
  withAddedCapabilities(spec, invocation.strings('cap-add').map(checkCapability));
  withDroppedCapabilities(spec, invocation.strings('cap-drop').map(checkCapability));
  const profile = invocation.string('seccomp-profile');
  if (invocation.bool('seccomp')) {
    linuxOf(spec).seccomp = profile
      ? parseJson<SpecSeccomp & Record<string, never>>(readFileSync(profile))
      : defaultSeccomp(process.capabilities?.bounding ?? []);
  } else if (profile) throw new Error('seccomp must be set to true, if using a custom seccomp-profile');
  const byDefault = invocation.string('apparmor-default-profile');
  const named = invocation.string('apparmor-profile');
  if (byDefault && named) throw new Error('apparmor-profile conflicts with apparmor-default-profile');
  if (byDefault) loadDefaultProfile(byDefault);
  const apparmor = byDefault || named;
  if (apparmor) process.apparmorProfile = apparmor;
  const files = invocation.string('rlimit-nofile');
  if (files)
    process.rlimits = [...(process.rlimits ?? []).filter(({ type }) => type !== 'RLIMIT_NOFILE'), parseLimit(files)];
}

function checkCapability(name: string): string {
  if (!name.startsWith('CAP_')) throw new Error(`capabilities must be specified with 'CAP_' prefix`);
  return name;
}

function parseLimit(text: string): { type: string; hard: number; soft: number } {
  const match = /^(\d+):(\d+)$/.exec(text);
  if (!match) throw new Error(`--rlimit-nofile requires the format 'soft:hard', got "${text}"`);
  const [soft, hard] = [Number(match[1]), Number(match[2])];
  return { type: 'RLIMIT_NOFILE', hard, soft };
}

function limit(spec: RuntimeSpec, invocation: Invocation): void {
  const memory = invocation.number('memory-limit');
  const resources = resourcesOf(spec);
  if (memory !== 0) resources.memory = { ...resources.memory, limit: memory };
  const cpu: NonNullable<typeof resources.cpu> = { ...resources.cpu };
  const shares = invocation.number('cpu-shares');
  if (shares > 0) cpu.shares = shares;
  const cpus = invocation.number('cpus');
  const quota = invocation.number('cpu-quota');
  const period = invocation.number('cpu-period');
  if (cpus > 0) {
    if (quota !== -1 || period !== 0) throw new Error('cpus and quota/period should be used separately');
    Object.assign(cpu, { quota: Math.trunc(cpus * 100_000), period: 100_000 });
  } else if (quota !== -1 || period !== 0) Object.assign(cpu, { quota, period });
  const onCpus = invocation.string('cpuset-cpus');
  if (onCpus) cpu.cpus = onCpus;
  const mems = invocation.string('cpuset-mems');
  if (mems) cpu.mems = mems;
  if (Object.keys(cpu).length > 0) resources.cpu = cpu;
  const rdt = invocation.string('rdt-class');
  if (rdt) linuxOf(spec).intelRdt = { closID: rdt };
}

const namespaceTypes = new Set(['pid', 'network', 'mount', 'ipc', 'uts', 'user', 'cgroup', 'time']);

function parseNamespace(text: string): SpecNamespace {
  const at = text.indexOf(':');
  const type = text.slice(0, at);
  if (at < 0 || !namespaceTypes.has(type))
    throw new Error("joining a Linux namespace using --with-ns requires the format 'nstype:path'");
  return { type: type as SpecNamespace['type'], path: text.slice(at + 1) };
}

/** A `--uidmap` or `--gidmap`. */
export function parseIdMap(text: string): SpecIdMapping {
  const match = /^(\d+):(\d+):(\d+)$/.exec(text);
  if (!match) throw new Error(`invalid mapping "${text}": it must be container-id:host-id:length`);
  const [containerID, hostID, size] = match.slice(1).map(Number);
  return { containerID: containerID!, hostID: hostID!, size: size! };
}

function mapIds(spec: RuntimeSpec, invocation: Invocation): void {
  const uids = invocation.strings('uidmap').map(parseIdMap);
  const gids = invocation.strings('gidmap').map(parseIdMap);
  if (uids.length === 0 && gids.length === 0) return;
  if (uids.length === 0 || gids.length === 0) throw new Error('--uidmap and --gidmap must be given together');
  withUserNamespace(spec, uids, gids);
}

function addDevice(spec: RuntimeSpec, text: string): void {
  const [host = '', second, third] = text.split(':');
  const isAccess = (part: string | undefined): part is string => part !== undefined && /^[rwm]+$/.test(part);
  const target = second === undefined || isAccess(second) ? host : second;
  withDevice(spec, hostDevice(host, target), isAccess(second) ? second : isAccess(third) ? third : 'rwm');
}
