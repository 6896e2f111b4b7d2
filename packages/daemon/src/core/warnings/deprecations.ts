import type { WarningService } from './warning-service.ts';

/**
 * What containerd 2.3 has deprecated, by the last part of its id, with what to use instead. Some of it can only be met once
 * Kubernetes' side is there; the list is whole so that configurations are judged today.
 */
export const deprecations = {
  'cgroup-v1':
    'Support for cgroup v1 is deprecated since containerd v2.2 and ends by May 2029 at the latest. Upgrade the host to cgroup v2.',
  'cri-registry-mirrors':
    'The property `mirrors` of `[plugins."io.containerd.cri.v1.images".registry]` is deprecated since containerd v1.5 and will be removed in containerd v2.4. Use `config_path` and a hosts.toml instead.',
  'cri-registry-auths':
    'The property `auths` of `[plugins."io.containerd.cri.v1.images".registry]` is deprecated since containerd v1.3 and will be removed in containerd v2.4. Use image pull secrets or a credential plugin instead.',
  'cri-registry-configs':
    'The property `configs` of `[plugins."io.containerd.cri.v1.images".registry]` is deprecated since containerd v1.5 and will be removed in containerd v2.4. Use `config_path` and a hosts.toml instead.',
  'cri-cni-bin-dir':
    'The property `bin_dir` of `[plugins."io.containerd.cri.v1.runtime".cni]` is deprecated since containerd v2.1 and will be removed in containerd v2.4. Use `bin_dirs` in the same table instead.',
  'enable-cdi':
    'The property `enable_cdi` of `[plugins."io.containerd.cri.v1.runtime"]` is deprecated: CDI devices are going to be supported always. Remove it.',
  'cri-create-container-checkpoint-restore':
    'Restoring a checkpoint by creating a CRI container from an image or archive is deprecated and will be removed in containerd v2.4.',
  'tracing-processor-config':
    'The settings of `[plugins."io.containerd.tracing.processor.v1.otlp"]` are deprecated since containerd v1.6 and will be removed in containerd v2.4. Use the OTEL_EXPORTER_OTLP_* environment variables instead.',
  'tracing-service-config':
    'The settings of `[plugins."io.containerd.internal.v1.tracing"]` are deprecated since containerd v1.6 and will be removed in containerd v2.4. Use the OTEL_* environment variables instead.',
  'nri-v010-plugin':
    'NRI plugins of the 0.1.0 style are deprecated since containerd v2.2. Run them through the v010-adapter plugin, or port them.',
  'nri-plugin-interface': 'An NRI plugin uses a deprecated part of the NRI interface. Build it with a newer NRI.',
  'runc-options-task-api-address':
    'The field `task_api_address` of the runc options is deprecated since containerd v2.3. Set `task_api_address` of CreateTaskRequest instead.',
  'runc-options-task-api-version':
    'The field `task_api_version` of the runc options is deprecated since containerd v2.3. Set `task_api_version` of CreateTaskRequest instead.',
} as const;

export type Deprecation = keyof typeof deprecations;

/** Notes that it is in use, under containerd's id. */
export function warnOf(warnings: WarningService, name: Deprecation): Promise<void> {
  return warnings.emit(`io.containerd.deprecation/${name}`, deprecations[name]);
}
