/**
 * The daemon as a library: `createDaemon({ plugins })` runs it inside a Node program; `definePlugin` adds to it.
 */
export { createLogger, parseLogLevel } from './core/log/log-writer.ts';
export type { LogFields, Logger, LogLevel } from './core/log/logger.ts';
export { field, schema } from './core/plugin/config-schema.ts';
export {
  definePlugin,
  type Plugin,
  type PluginContext,
  type PluginMeta,
  PluginSkip,
  type PluginStatus,
  type PluginType,
  pluginType,
} from './core/plugin/plugin.ts';
export { type Metadata, PluginTypes } from './core/plugin/plugin-types.ts';
export type { ServiceSet } from './core/plugin/service-set.ts';
export { contextOf, type RequestContext } from './core/request-context.ts';
export { version } from './core/version/version.ts';
export { type ConfigFinding, checkConfig } from './server/config/check-config.ts';
export { fullConfig, type LoadedConfig, type LoadOptions, loadConfig, parseToml } from './server/config/load-config.ts';
export { migrateText } from './server/config/migrate-text.ts';
export { printToml } from './server/config/print-toml.ts';
export { createDaemon, type Daemon, type DaemonOptions } from './server/daemon.ts';
export { callMetricsPlugin } from './server/plugins/call-metrics.ts';
export { deprecationsPlugin } from './server/plugins/deprecations.ts';
export { grpcServerPlugin, grpcTcpServerPlugin } from './server/plugins/grpc.ts';
export { debugServerPlugin, metricsServerPlugin } from './server/plugins/http.ts';
export { optPlugin } from './server/plugins/opt.ts';
export { serverPlugins } from './server/plugins/server-plugins.ts';
export { otelGrpcPlugin, otelTtrpcPlugin, otlpPlugin, tracingPlugin } from './server/plugins/tracing.ts';
export { ttrpcServerPlugin } from './server/plugins/ttrpc.ts';
export { runUntilSignal } from './server/signals.ts';
export { healthcheckPlugin } from './services/healthcheck/healthcheck-service.ts';
export { introspectionPlugin } from './services/introspection/introspection.ts';
export { introspectionServicePlugin } from './services/introspection/introspection-service.ts';
export { versionPlugin } from './services/version/version-service.ts';
