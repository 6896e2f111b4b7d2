import { hostname as hostHostname } from 'node:os';
import { invalidArgument } from '@gantry/api';
import {
  type ContainerConfig,
  type LinuxContainerSecurityContext,
  NamespaceMode,
  type PodSandboxConfig,
  SupplementalGroupsPolicy,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { ResourceClasses } from '@gantry/daemon/core/resource-classes/resource-classes.ts';
import {
  defaultPath,
  type ImageConfig,
  type RuntimeSpec,
  replaceEnvironment,
  type SpecNamespace,
  type SpecUser,
  withNamespace,
  withPrivileged,
} from '@gantry/oci';
import type { RuntimeConfig } from '../config/runtime-config.ts';
import { CriAnnotation } from '../labels.ts';
import { type Machine, requireHugepages } from '../run/machine.ts';
import type { RuntimeHandler } from '../run/runtime-handlers.ts';
import type { SelinuxLabels } from '../selinux/selinux.ts';
import { appArmorProfile, hasAppArmor } from './apparmor.ts';
import { baseSpec, cgroupsPath, passedAnnotations } from './base-spec.ts';
import { allCapabilities, applyCapabilities } from './capabilities.ts';
import { applyClasses } from './classes.ts';
import { applyMounts, type ContainerMount } from './container-mounts.ts';
import { applyDevices, applyHostDevices } from './devices.ts';
import { applyResources, oomScoreAdj, specResources } from './resources.ts';
import { seccompProfile } from './seccomp.ts';
import { groupWithoutUser, processUser, type UserFiles } from './user.ts';
import { applyUserNamespace, requireSameIds } from './user-namespace.ts';

export interface ContainerSpecInput {
  id: string;
  config: ContainerConfig;
  sandboxId: string;
  sandboxConfig: PodSandboxConfig;
  /** Of the pause process. */
  sandboxPid: number;
  /** Of the container whose processes are seen with `TARGET`. */
  targetPid?: number | undefined;
  handler: RuntimeHandler;
  settings: RuntimeConfig;
  image: ImageConfig;
  imageName: string;
  userFiles: UserFiles;
  mounts: readonly ContainerMount[];
  /** What the machine can do. */
  machine: Omit<Machine, 'unified'>;
  selinux: SelinuxLabels;
  classes: ResourceClasses;
  /** Told what of the configuration has no effect. */
  warn?: (message: string) => void;
}

/** The specification of a container of a pod. @throws InvalidArgument for a configuration that cannot be */
export async function containerSpec(input: ContainerSpecInput): Promise<RuntimeSpec> {
  const { id, config, sandboxConfig, handler, settings } = input;
  const security = config.linux?.securityContext;
  const privileged = security?.privileged ?? false;
  if (privileged && !sandboxConfig.linux?.securityContext?.privileged) {
    throw invalidArgument('failed to generate spec opts: no privileged container allowed in sandbox');
  }
  const spec = await baseSpec(id, handler);
  const linux = spec.linux!;
  const process = spec.process!;
  process.args = processArgs(config, input.image);
  process.cwd = config.workingDir || input.image.config?.WorkingDir || '/';
  process.env = environment(input, process.env ?? [defaultPath]);
  process.terminal = config.tty;
  if (!config.tty) delete process.terminal;
  process.user = userOf(security, input);
  const resources = config.linux?.resources;
  if (resources) process.oomScoreAdj = oomScoreAdj(Number(resources.oomScoreAdj), settings.restrict_oom_score_adj);
  if (security?.readonlyRootfs) spec.root = { path: 'rootfs', readonly: true };
  linux.cgroupsPath = cgroupsPath(sandboxConfig.linux?.cgroupParent ?? '', id) ?? linux.cgroupsPath!;

  addCgroupMount(spec, privileged || handler.cgroup_writable);
  await applyMounts(spec, input.mounts);
  paths(spec, security, settings);
  const strange = privileged ? [] : applyCapabilities(spec, security?.capabilities);
  if (strange.length > 0) input.warn?.(`no such capabilities, left out: ${strange.join(', ')}`);
  if (security?.noNewPrivs) process.noNewPrivileges = true;
  await applyDevices(spec, config.devices, settings.device_ownership_from_security_context ? security : undefined);
  if (privileged) await privilege(spec, handler, security);
  namespaces(spec, input);
  const seccomp = await seccompProfile({
    profile: security?.seccomp,
    oldPath: security?.seccompProfilePath ?? '',
    unset: settings.unset_seccomp_profile,
    privileged,
    capabilities: process.capabilities?.bounding ?? [],
  });
  if (seccomp) linux.seccomp = seccomp;
  const enabled = hasAppArmor() && !settings.disable_apparmor;
  const profile = await appArmorProfile(security?.apparmor, security?.apparmorProfile ?? '', privileged, enabled);
  if (profile) process.apparmorProfile = profile;
  // Everything is allowed to what is privileged; its files are the pod's all the same.
  if (input.selinux.process !== '' && !privileged) process.selinuxLabel = input.selinux.process;
  if (input.selinux.mount !== '') linux.mountLabel = input.selinux.mount;
  if (resources) {
    requireHugepages(input.machine, resources);
    applyResources(spec, specResources(resources, input.machine.swap, input.machine.hugepages));
  }
  applyClasses(spec, config.metadata?.name ?? '', config.annotations, sandboxConfig.annotations, {
    classes: input.classes,
    settings: settings.containerd,
  });
  spec.annotations = { ...spec.annotations, ...annotations(input) };
  return spec;
}

function processArgs(config: ContainerConfig, image: ImageConfig): string[] {
  let command: readonly string[] = config.command;
  let args: readonly string[] = config.args;
  if (command.length === 0) {
    // The image's arguments are for its entrypoint only.
    if (args.length === 0) args = image.config?.Cmd ?? [];
    command = image.config?.Entrypoint ?? [];
  }
  if (command.length === 0 && args.length === 0) throw invalidArgument('no command specified');
  return [...command, ...args];
}

function environment({ config, image, sandboxConfig }: ContainerSpecInput, present: readonly string[]): string[] {
  const own = config.envs.map(({ key, value }) => `${key}=${Buffer.from(value).toString('utf8')}`);
  const fromImage = image.config?.Env ?? [];
  const hostname = sandboxConfig.hostname || hostHostname();
  // What an image says of these goes before what is so by default.
  const byDefault = [...(config.tty ? ['TERM=xterm'] : []), `HOSTNAME=${hostname}`];
  return replaceEnvironment(present, [...byDefault, ...fromImage, ...own]);
}

function userOf(
  security: LinuxContainerSecurityContext | undefined,
  { image, userFiles }: ContainerSpecInput,
): SpecUser {
  let user = security?.runAsUsername ?? '';
  if (user === '' && security?.runAsUser) user = String(security.runAsUser.value);
  if (security?.runAsGroup) {
    if (user === '') throw groupWithoutUser(security.runAsGroup.value);
    user = `${user}:${security.runAsGroup.value}`;
  }
  return processUser(
    {
      user: user || (image.config?.User ?? ''),
      supplemental: security?.supplementalGroups ?? [],
      strict: isStrict(security?.supplementalGroupsPolicy),
    },
    userFiles,
  );
}

/** @throws InvalidArgument for a policy that nobody knows yet */
function isStrict(policy = SupplementalGroupsPolicy.Merge): boolean {
  if (SupplementalGroupsPolicy[policy] === undefined) {
    throw invalidArgument(`not implemented in this release: SupplementalGroupsPolicy=${policy}`);
  }
  return policy === SupplementalGroupsPolicy.Strict;
}

function addCgroupMount(spec: RuntimeSpec, writable: boolean): void {
  const options = ['nosuid', 'noexec', 'nodev', 'relatime', writable ? 'rw' : 'ro'];
  const mounts = (spec.mounts ?? []).filter(({ destination }) => destination !== '/sys/fs/cgroup');
  spec.mounts = [...mounts, { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options }];
}

/** Paths are masked as the client says, and not otherwise: with an old one, that knows nothing of them, as by default. */
function paths(spec: RuntimeSpec, security: LinuxContainerSecurityContext | undefined, settings: RuntimeConfig): void {
  const linux = spec.linux!;
  if (!settings.disable_proc_mount) {
    delete linux.maskedPaths;
    delete linux.readonlyPaths;
  }
  if (security && security.maskedPaths.length > 0) linux.maskedPaths = [...security.maskedPaths];
  if (security && security.readonlyPaths.length > 0) linux.readonlyPaths = [...security.readonlyPaths];
}

async function privilege(
  spec: RuntimeSpec,
  handler: RuntimeHandler,
  security: LinuxContainerSecurityContext | undefined,
): Promise<void> {
  const few = spec.linux?.resources?.devices;
  withPrivileged(spec, allCapabilities());
  if (security?.noNewPrivs) spec.process!.noNewPrivileges = true;
  if (!handler.privileged_without_host_devices) await applyHostDevices(spec);
  else if (!handler.privileged_without_host_devices_all_devices_allowed && few) {
    spec.linux!.resources!.devices = few;
  }
}

function namespaces(spec: RuntimeSpec, input: ContainerSpecInput): void {
  const { config, sandboxConfig, sandboxPid, targetPid } = input;
  const options = config.linux?.securityContext?.namespaceOptions;
  const join = (type: SpecNamespace['type'], file: string, pid = sandboxPid): void =>
    withNamespace(spec, { type, path: `/proc/${pid}/ns/${file}` });
  // Those of the pod, whatever is asked for: of a pod with the machine's they are that.
  join('network', 'net');
  join('uts', 'uts');
  join('ipc', 'ipc');
  switch (options?.pid) {
    case NamespaceMode.CONTAINER:
      break;
    case NamespaceMode.TARGET:
      join('pid', 'pid', targetPid);
      break;
    default:
      join('pid', 'pid');
  }
  const podOptions = sandboxConfig.linux?.securityContext?.namespaceOptions;
  requireSameIds(podOptions?.usernsOptions, options?.usernsOptions);
  const before = spec.linux!.namespaces?.length ?? 0;
  applyUserNamespace(spec, options?.usernsOptions, podOptions?.network === NamespaceMode.NODE);
  if ((spec.linux!.namespaces?.length ?? 0) > before) join('user', 'user');
}

function annotations({
  config,
  sandboxId,
  sandboxConfig,
  handler,
  imageName,
}: ContainerSpecInput): Record<string, string> {
  const pod = sandboxConfig.metadata;
  return {
    ...passedAnnotations(sandboxConfig.annotations, handler.pod_annotations),
    ...passedAnnotations(config.annotations, handler.container_annotations),
    [CriAnnotation.containerType]: 'container',
    [CriAnnotation.sandboxId]: sandboxId,
    [CriAnnotation.sandboxNamespace]: pod?.namespace ?? '',
    [CriAnnotation.sandboxUid]: pod?.uid ?? '',
    [CriAnnotation.sandboxName]: pod?.name ?? '',
    [CriAnnotation.containerName]: config.metadata?.name ?? '',
    [CriAnnotation.imageName]: imageName,
  };
}
