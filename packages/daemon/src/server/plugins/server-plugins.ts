// The plugins that make a daemon reachable and able to tell of itself, in the order in which they are shown.
import type { Plugin } from '../../core/plugin/plugin.ts';
import { callMetricsPlugin } from './call-metrics.ts';
import { deprecationsPlugin } from './deprecations.ts';
import { grpcServerPlugin, grpcTcpServerPlugin } from './grpc.ts';
import { debugServerPlugin, metricsServerPlugin } from './http.ts';
import { optPlugin } from './opt.ts';
import { otelGrpcPlugin, otelTtrpcPlugin, otlpPlugin, tracingPlugin } from './tracing.ts';
import { ttrpcServerPlugin } from './ttrpc.ts';

export const serverPlugins: readonly Plugin[] = [
  optPlugin,
  deprecationsPlugin,
  otlpPlugin,
  tracingPlugin,
  otelTtrpcPlugin,
  callMetricsPlugin,
  otelGrpcPlugin,
  metricsServerPlugin,
  ttrpcServerPlugin,
  grpcServerPlugin,
  grpcTcpServerPlugin,
  debugServerPlugin,
];
