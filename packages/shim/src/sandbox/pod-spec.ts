import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument } from '@gantry/api';
import {
  NamespaceMode,
  type NamespaceOption,
  type PodSandboxConfig,
  PodSandboxConfigSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { RuntimeSpec, SpecNamespace } from '@gantry/oci';

/** Pods' own processes go last when memory is short, as Kubernetes' runtimes have it. */
const lastToGo = -998;
const CAP_SYS_RESOURCE = 24n;

/** Without the capability a score can be raised only. */
function oomScoreAdj(): number {
  const status = readFileSync('/proc/self/status', 'latin1');
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  if ((effective >> CAP_SYS_RESOURCE) & 1n) return lastToGo;
  return Math.max(lastToGo, Number(readFileSync('/proc/self/oom_score_adj', 'latin1')));
}

/**
 * What a pod's configuration asks of its sandbox: namespaces, hostname, kernel settings, cgroup. Loaded only for those who send one,
 * because the messages of CRI are many.
 */
export function podSpec(id: string, options: Any, netns: string): RuntimeSpec {
  const config = read(options);
  const { linux } = config;
  const namespaceOptions = linux?.securityContext?.namespaceOptions;
  const hostNetwork = namespaceOptions?.network === NamespaceMode.NODE;
  const cgroup = cgroupPath(linux?.cgroupParent ?? '', id);
  const { runAsUser, runAsGroup, supplementalGroups = [] } = linux?.securityContext ?? {};
  return {
    ociVersion: '1.0.2',
    ...(config.hostname && !hostNetwork && { hostname: config.hostname }),
    process: {
      user: {
        uid: Number(runAsUser?.value ?? 0),
        gid: Number(runAsGroup?.value ?? 0),
        ...(supplementalGroups.length > 0 && { additionalGids: supplementalGroups.map(Number) }),
      },
      cwd: '/',
      noNewPrivileges: true,
      oomScoreAdj: oomScoreAdj(),
    },
    annotations: {
      ...config.annotations,
      'io.kubernetes.cri.container-type': 'sandbox',
      'io.kubernetes.cri.sandbox-id': id,
      'io.kubernetes.cri.sandbox-name': config.metadata?.name ?? '',
      'io.kubernetes.cri.sandbox-namespace': config.metadata?.namespace ?? '',
      'io.kubernetes.cri.sandbox-uid': config.metadata?.uid ?? '',
    },
    linux: {
      namespaces: namespacesOf(namespaceOptions, netns),
      ...userNamespace(namespaceOptions),
      sysctl: { ...linux?.sysctls },
      resources: { cpu: { shares: 2 }, devices: [{ allow: false, access: 'rwm' }] },
      ...(cgroup && { cgroupsPath: cgroup }),
    },
  };
}

function read(options: Any): PodSandboxConfig {
  try {
    return fromBinary(PodSandboxConfigSchema, options.value);
  } catch (error) {
    throw invalidArgument(`failed to read the pod sandbox config: ${(error as Error).message}`, error);
  }
}

function namespacesOf(options: NamespaceOption | undefined, netns: string): SpecNamespace[] {
  const namespaces: SpecNamespace[] = [{ type: 'mount' }];
  if (options?.network !== NamespaceMode.NODE)
    namespaces.push({ type: 'network', ...(netns && { path: netns }) }, { type: 'uts' });
  if (options?.pid !== NamespaceMode.NODE) namespaces.push({ type: 'pid' });
  if (options?.ipc !== NamespaceMode.NODE) namespaces.push({ type: 'ipc' });
  if (options?.usernsOptions?.mode === NamespaceMode.POD) namespaces.push({ type: 'user' });
  return namespaces;
}

function userNamespace(options: NamespaceOption | undefined): Pick<NonNullable<RuntimeSpec['linux']>, 'uidMappings'> {
  const user = options?.usernsOptions;
  if (user?.mode !== NamespaceMode.POD) return {};
  const mapping = (list: typeof user.uids) =>
    list.map(({ containerId, hostId, length }) => ({ containerID: containerId, hostID: hostId, size: length }));
  return { uidMappings: mapping(user.uids), gidMappings: mapping(user.gids) } as object;
}

/** With systemd, `slice:prefix:name`; else a path. */
function cgroupPath(parent: string, id: string): string {
  if (parent === '') return '';
  const base = path.basename(parent);
  return base.endsWith('.slice') ? `${base}:cri-containerd:${id}` : path.join(parent, id);
}
