import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { TaskService } from '../../core/tasks/task-service.ts';
import { RestartMonitor } from './restart-monitor.ts';

const defaultIntervalMs = 10_000;

/** `io.containerd.monitor.container.v1.restart`: starts containers again that their labels want running. */
export const restartMonitorPlugin = definePlugin({
  type: PluginTypes.ContainerMonitor,
  id: 'restart',
  requires: [PluginTypes.Event, PluginTypes.Metadata, PluginTypes.Service],
  config: schema({
    interval: field.duration('10s'),
    /** Gantry: the longest wait between restarts of a container that keeps ending; '0s' has none, as containerd. */
    backoff_max: field.duration('0s'),
  }),
  init(context): RestartMonitor {
    const { config, meta } = context;
    const { containers, namespaces, snapshotters } = context.get(PluginTypes.Metadata);
    meta.capabilities.push('no', 'always', 'on-failure', 'unless-stopped');
    const monitor = new RestartMonitor({
      namespaces,
      containers,
      snapshotters,
      tasks: context.get(PluginTypes.Service, 'tasks-service') as TaskService,
      intervalMs: config.interval || defaultIntervalMs,
      backoffMaxMs: config.backoff_max,
      log: context.log,
    });
    context.onClose(() => monitor.close());
    monitor.start();
    return monitor;
  },
});
