import { isAny, unpackAny } from '@gantry/api';
import { TaskDeleteSchema, TaskOOMSchema } from '@gantry/api/gen/events/task_pb.js';
import { cgroupMode } from '@gantry/cgroups';
import type { MetricsRegistry } from '../../core/metrics/metrics-registry.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { contextOf } from '../../core/request-context.ts';
import type { TaskService } from '../../core/tasks/task-service.ts';
import { warnOf } from '../../core/warnings/deprecations.ts';
import { type TaskSample, taskMetrics } from './task-metrics.ts';

/** `io.containerd.monitor.task.v1.cgroups`: numbers of running tasks' cgroups on `/v1/metrics`. */
export const taskMonitorPlugin = definePlugin({
  type: PluginTypes.TaskMonitor,
  id: 'cgroups',
  requires: [PluginTypes.Event, PluginTypes.Metadata, PluginTypes.Service, PluginTypes.Metrics, PluginTypes.Warning],
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({ no_prometheus: field.boolean(false) }),
  async init(context): Promise<unknown> {
    if ((await cgroupMode()) !== 'unified') await warnOf(context.get(PluginTypes.Warning, 'deprecations'), 'cgroup-v1');
    const metrics = context.all(PluginTypes.Metrics).get('grpc-prometheus') as
      | { registry: MetricsRegistry }
      | undefined;
    if (context.config.no_prometheus || !metrics) return {};
    const { containers, namespaces } = context.get(PluginTypes.Metadata);
    const tasks = context.get(PluginTypes.Service, 'tasks-service') as TaskService;
    const ooms = new Map<string, number>();
    context.onClose(
      context.get(PluginTypes.Event).listen(({ namespace, event }) => {
        if (isAny(event, TaskOOMSchema)) {
          const key = `${namespace}/${unpackAny(TaskOOMSchema, event).containerId}`;
          ooms.set(key, (ooms.get(key) ?? 0) + 1);
        } else if (isAny(event, TaskDeleteSchema)) {
          const { containerId, id } = unpackAny(TaskDeleteSchema, event);
          if (id === '' || id === containerId) ooms.delete(`${namespace}/${containerId}`);
        }
      }),
    );
    const sample = async (namespace: string): Promise<TaskSample[]> => {
      const ctx = contextOf(namespace);
      const stats = await tasks.metrics(ctx, []);
      if (stats.length === 0) return [];
      const runtimes = new Map((await containers.list(ctx)).map(({ id, runtime }) => [id, runtime.name]));
      return stats.map(({ id, data }) => ({
        id,
        namespace,
        runtime: runtimes.get(id) ?? '',
        stats: data,
        ooms: ooms.get(`${namespace}/${id}`) ?? 0,
      }));
    };
    metrics.registry.collect(async () => {
      const samples = await Promise.all((await namespaces.list()).map(sample));
      return taskMetrics(samples.flat());
    });
    return {};
  },
});
