import { formatDuration } from '@gantry/daemon/core/plugin/duration.ts';
import type { Cri } from '../cri.ts';

const special: Record<string, string> = {
  enable_cdi: 'enableCDI',
  cdi_spec_dirs: 'cdiSpecDirs',
  enable_criu: 'enableCRIU',
  enable_unprivileged_icmp: 'enableUnprivilegedICMP',
  // Without names of their own in containerd's JSON.
  container_annotations: 'ContainerAnnotations',
  pod_annotations: 'PodAnnotations',
  restrict_oom_score_adj: 'restrictOOMScoreAdj',
  drain_exec_sync_io_timeout: 'drainExecSyncIOTimeout',
  ignore_blockio_not_enabled_errors: 'ignoreBlockIONotEnabledErrors',
};
/** As their names are in the file, in containerd's JSON too. */
const plain = new Set([
  'device_ownership_from_security_context',
  'io_type',
  'privileged_without_host_devices',
  'privileged_without_host_devices_all_devices_allowed',
]);

/** The runtime's configuration as `crictl info` shows it: keys in the form that containerd's JSON has. */
export function verboseConfig(cri: Cri): object {
  const { runtime } = cri.config;
  return {
    ...(renamed(runtime, []) as object),
    // As text, as Go's reader wants it.
    drainExecSyncIOTimeout: formatDuration(runtime.drain_exec_sync_io_timeout),
    rootDir: cri.root,
    stateDir: cri.state,
  };
}

function renamed(value: unknown, path: readonly string[]): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  // Names of runtimes, and of their options, are not ours.
  const free = path.at(-1) === 'runtimes' || path.at(-1) === 'options';
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [free ? key : nameOf(key), renamed(inner, [...path, key])]),
  );
}

function nameOf(key: string): string {
  if (plain.has(key)) return key;
  return special[key] ?? key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
}
