import { definePlugin, PluginTypes, pluginType, version } from '@gantry/daemon';
import type { MetricsRegistry } from '@gantry/daemon/core/metrics/metrics-registry.ts';
import { field, schema } from '@gantry/daemon/core/plugin/config-schema.ts';
import { defaultSocketPath } from '@gantry/nri/connection-numbers.ts';
import type { NriSettings } from '@gantry/nri/runtime/nri-host.ts';
import { nriMetrics } from './nri-metrics.ts';

/** `[plugins.'io.containerd.nri.v1.nri']`. */
export const nriConfig = schema({
  disable: field.boolean(false),
  socket_path: field.path(defaultSocketPath),
  plugin_path: field.path('/opt/nri/plugins'),
  plugin_config_path: field.path('/etc/nri/conf.d'),
  plugin_registration_timeout: field.duration('5s'),
  plugin_request_timeout: field.duration('2s'),
  disable_connections: field.boolean(false),
  default_validator: field.table({
    enable: field.boolean(false),
    reject_oci_hook_adjustment: field.boolean(false),
    reject_runtime_default_seccomp_adjustment: field.boolean(false),
    reject_unconfined_seccomp_adjustment: field.boolean(false),
    reject_custom_seccomp_adjustment: field.boolean(false),
    reject_namespace_adjustment: field.boolean(false),
    reject_sysctl_adjustment: field.boolean(false),
    required_plugins: field.strings([]),
    tolerate_missing_plugins_annotation: field.string(''),
  }),
});

/** What CRI starts plugins with; absent if that is disabled. */
export interface NriInstance {
  settings: NriSettings | undefined;
}

export const nriType = pluginType<NriInstance>('io.containerd.nri.v1');

/** `io.containerd.nri.v1.nri`. Nothing starts here: plugins are shown what CRI has found, so they come after it. */
export const nriPlugin = definePlugin({
  type: nriType,
  id: 'nri',
  requires: [PluginTypes.Metrics],
  config: nriConfig,
  init(context): NriInstance {
    const { config, state } = context;
    if (config.disable) return { settings: undefined };
    const metrics = context.all(PluginTypes.Metrics).get('grpc-prometheus') as
      | { registry: MetricsRegistry }
      | undefined;
    return {
      settings: {
        socketPath: config.socket_path,
        pluginPath: config.plugin_path,
        pluginConfigPath: config.plugin_config_path,
        processesPath: `${state}/plugins`,
        registrationTimeout: config.plugin_registration_timeout,
        requestTimeout: config.plugin_request_timeout,
        disableConnections: config.disable_connections,
        validator: config.default_validator,
        runtimeName: 'containerd',
        runtimeVersion: version.version,
        observer: metrics && nriMetrics(metrics.registry),
      },
    };
  },
});
