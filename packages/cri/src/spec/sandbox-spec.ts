import { hostname as hostHostname } from 'node:os';
import { invalidArgument } from '@gantry/api';
import { NamespaceMode, type PodSandboxConfig } from '@gantry/api/gen/cri/v1/api_pb.js';
import {
  type ImageConfig,
  type RuntimeSpec,
  type SpecMount,
  withHostNamespace,
  withImageConfig,
  withNamespace,
} from '@gantry/oci';
import type { RuntimeConfig } from '../config/runtime-config.ts';
import { CriAnnotation } from '../labels.ts';
import type { RuntimeHandler } from '../run/runtime-handlers.ts';
import type { SelinuxLabels } from '../selinux/selinux.ts';
import { appArmorProfile, hasAppArmor } from './apparmor.ts';
import { baseSpec, cgroupsPath, passedAnnotations } from './base-spec.ts';
import { oomScoreAdj } from './resources.ts';
import { seccompProfile } from './seccomp.ts';
import { groupWithoutUser, processUser, type UserFiles } from './user.ts';
import { applyUserNamespace, podIdMapping } from './user-namespace.ts';

export interface SandboxSpecInput {
  id: string;
  config: PodSandboxConfig;
  handler: RuntimeHandler;
  settings: RuntimeConfig;
  image: ImageConfig;
  imageName: string;
  userFiles: UserFiles;
  netnsPath: string;
  /** The directory with resolv.conf. */
  directory: string;
  /** What /dev/shm is. */
  shm: string;
  selinux: SelinuxLabels;
}

/** A little of every processor, so that what only waits is never starved of being ended. */
const sandboxCpuShares = 2;
const sandboxOomScoreAdj = -998;

/** What a pod's host name is: its own, or with the host's network that of the host. */
export function sandboxHostname(config: PodSandboxConfig): string {
  const network = config.linux?.securityContext?.namespaceOptions?.network;
  if (config.hostname !== '') return config.hostname;
  return network === NamespaceMode.NODE ? hostHostname() : '';
}

/** The specification of the process that holds a pod's namespaces. */
export async function sandboxSpec(input: SandboxSpecInput): Promise<RuntimeSpec> {
  const { id, config, settings, image } = input;
  const security = config.linux?.securityContext;
  const options = security?.namespaceOptions;
  const spec = await baseSpec(id);
  withImageConfig(spec, image.config);
  const process = spec.process!;
  // It needs nothing of the environment.
  delete process.env;
  if (image.config?.Env && image.config.Env.length > 0) process.env = [...image.config.Env];
  // It only waits, and needs no groups but its own.
  process.user = processUser({ user: sandboxUser(input), supplemental: [], strict: true }, input.userFiles);
  process.noNewPrivileges = true;
  process.oomScoreAdj = oomScoreAdj(sandboxOomScoreAdj, settings.restrict_oom_score_adj);
  spec.root = { path: 'rootfs', readonly: true };
  const linux = spec.linux!;
  linux.cgroupsPath = cgroupsPath(config.linux?.cgroupParent ?? '', id) ?? linux.cgroupsPath!;
  linux.resources = { ...linux.resources, cpu: { shares: sandboxCpuShares } };
  if (options?.network === NamespaceMode.NODE) {
    if (config.hostname !== '') {
      throw invalidArgument(
        `pod in the host's network: unable to set hostname "${config.hostname}" without a private UTS namespace`,
      );
    }
    withHostNamespace(spec, 'network');
    withHostNamespace(spec, 'uts');
  } else {
    const own = podIdMapping(options?.usernsOptions);
    withNamespace(spec, { type: 'network', ...(!own && { path: input.netnsPath }) });
    const name = sandboxHostname(config);
    if (name !== '') spec.hostname = name;
  }
  if (options?.pid === NamespaceMode.NODE) withHostNamespace(spec, 'pid');
  if (options?.ipc === NamespaceMode.NODE) withHostNamespace(spec, 'ipc');
  applyUserNamespace(spec, options?.usernsOptions, options?.network === NamespaceMode.NODE);
  const sysctl = sysctls(config, settings);
  if (Object.keys(sysctl).length > 0) linux.sysctl = sysctl;
  const plain = (spec.mounts ?? []).filter(({ destination }) => destination !== '/dev/shm');
  spec.mounts = [...plain, ...sandboxMounts(input)];
  if (security?.privileged) {
    for (const mount of spec.mounts) {
      if (mount.type === 'sysfs')
        mount.options = (mount.options ?? []).map((option) => (option === 'ro' ? 'rw' : option));
    }
  }
  const seccomp = await seccompProfile({
    profile: security?.seccomp,
    oldPath: security?.seccompProfilePath ?? '',
    unset: settings.unset_seccomp_profile,
    privileged: security?.privileged ?? false,
    capabilities: process.capabilities?.bounding ?? [],
  });
  if (seccomp) linux.seccomp = seccomp;
  // Where there is no AppArmor, containers that insist on it are refused, not their pod.
  if (hasAppArmor() && !settings.disable_apparmor) {
    const apparmor = await appArmorProfile(security?.apparmor, '', security?.privileged ?? false, true);
    if (apparmor) process.apparmorProfile = apparmor;
  }
  if (input.selinux.process !== '' && !security?.privileged) process.selinuxLabel = input.selinux.process;
  if (input.selinux.mount !== '') linux.mountLabel = input.selinux.mount;
  spec.annotations = { ...spec.annotations, ...sandboxAnnotations(input) };
  return spec;
}

function sandboxUser({ config, image }: SandboxSpecInput): string {
  const security = config.linux?.securityContext;
  if (!security?.runAsUser) {
    if (security?.runAsGroup) throw groupWithoutUser(security.runAsGroup.value);
    return image.config?.User ?? '';
  }
  return security.runAsGroup
    ? `${security.runAsUser.value}:${security.runAsGroup.value}`
    : String(security.runAsUser.value);
}

function sandboxMounts({ directory, shm }: SandboxSpecInput): SpecMount[] {
  const options = ['rbind', 'ro', 'nosuid', 'nodev', 'noexec'];
  return [
    { destination: '/dev/shm', type: 'bind', source: shm, options },
    { destination: '/etc/resolv.conf', type: 'bind', source: `${directory}/resolv.conf`, options },
  ];
}

/** Those asked for, and those that let unprivileged programs serve low ports and ping in a network of their own. */
function sysctls(config: PodSandboxConfig, settings: RuntimeConfig): Record<string, string> {
  const asked = { ...config.linux?.sysctls };
  const options = config.linux?.securityContext?.namespaceOptions;
  if (options?.network === NamespaceMode.NODE) return asked;
  const userns = options?.usernsOptions?.mode === NamespaceMode.POD && options.usernsOptions.uids.length > 0;
  return {
    ...(settings.enable_unprivileged_ports && { 'net.ipv4.ip_unprivileged_port_start': '0' }),
    // The range has to be of ids that the user namespace has.
    ...(settings.enable_unprivileged_icmp && !userns && { 'net.ipv4.ping_group_range': '0 2147483647' }),
    ...asked,
  };
}

function sandboxAnnotations({ id, config, handler, imageName }: SandboxSpecInput): Record<string, string> {
  const { name = '', namespace = '', uid = '' } = config.metadata ?? {};
  const resources = config.linux?.resources;
  return {
    ...passedAnnotations(config.annotations, handler.pod_annotations),
    [CriAnnotation.containerType]: 'sandbox',
    [CriAnnotation.sandboxId]: id,
    [CriAnnotation.sandboxName]: name,
    [CriAnnotation.sandboxNamespace]: namespace,
    [CriAnnotation.sandboxUid]: uid,
    [CriAnnotation.sandboxLogDirectory]: config.logDirectory,
    [CriAnnotation.sandboxImageName]: imageName,
    ...(resources && {
      [CriAnnotation.sandboxCpuPeriod]: String(resources.cpuPeriod),
      [CriAnnotation.sandboxCpuQuota]: String(resources.cpuQuota),
      [CriAnnotation.sandboxCpuShares]: String(resources.cpuShares),
      [CriAnnotation.sandboxMemory]: String(resources.memoryLimitInBytes),
    }),
  };
}
