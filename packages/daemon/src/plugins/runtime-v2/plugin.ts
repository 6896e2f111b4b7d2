import path from 'node:path';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { sweepDeadGroups } from './dead-socket.ts';
import { DescriptorStore } from './descriptor-store.ts';
import { ShimGroups } from './shim-groups.ts';
import { TaskManager } from './task-manager.ts';

/** `io.containerd.shim.v1.manager`: which shims there are and how they are started. */
export const shimManager = definePlugin({
  type: PluginTypes.Shim,
  id: 'manager',
  requires: [PluginTypes.Event, PluginTypes.Metadata],
  config: schema({
    env: field.strings(),
    socket_dir: field.string(),
    /** Gantry: the shim that answers for our own runtime names; '' for the one of this program. */
    gantry_shim: field.string(),
    /** Gantry: a foreign shim binary that answers for `io.containerd.runc.v2`. */
    runc_v2_shim: field.string(),
    /** Gantry: `shared` (one shim for all containers of a namespace), `sandbox` or `container`. */
    grouping: field.string('shared', (value) =>
      ['shared', 'sandbox', 'container'].includes(value) ? undefined : 'shared, sandbox or container',
    ),
    /** Gantry: how long a shim of ours without containers is kept. */
    idle_timeout: field.duration('10s'),
  }),
  async init(context): Promise<ShimGroups> {
    const { config, daemon } = context;
    const bin = path.resolve(daemon.programDir, '..', 'bin');
    let descriptors: DescriptorStore | undefined;
    try {
      descriptors = DescriptorStore.listen(path.join(daemon.state, 'kept.sock'), context.log);
      context.onClose(() => descriptors?.close());
    } catch (error) {
      context.log.warn('no descriptors are kept: terminals end with the shim that has them', { error });
    }
    const socketDir = config.socket_dir || path.join(daemon.state, 's');
    await sweepDeadGroups(socketDir);
    const groups = new ShimGroups({
      descriptors,
      runtimes: {
        ownShim: config.gantry_shim || process.env['GANTRY_SHIM'] || path.join(bin, 'gantry-shim'),
        runcV2Shim: config.runc_v2_shim,
        directories: [path.dirname(process.argv[1] ?? '')],
      },
      shims: {
        environment: {
          address: daemon.address,
          ttrpcAddress: daemon.ttrpcAddress,
          publishBinary: path.join(bin, 'gantryd'),
          logLevel: daemon.logLevel,
          extra: [
            ...config.env,
            `GANTRY_SHIM_GROUPING=${config.grouping}`,
            `GANTRY_LOG_FORMAT=${daemon.logFormat}`,
            ...(daemon.logTraceIds ? ['GANTRY_LOG_TRACE_ID=1'] : []),
            ...(daemon.watchThreadsMs === undefined ? [] : [`GANTRY_SHIM_WATCH_MS=${daemon.watchThreadsMs}`]),
          ],
          socketDir,
          ...(descriptors && { descriptorStore: descriptors.path }),
        },
        loadTimeoutMs: daemon.timeout('io.containerd.timeout.shim.load'),
        startTimeoutMs: 30_000,
        idleMs: config.idle_timeout,
        log: context.log,
      },
      share: config.grouping === 'shared',
    });
    context.onClose(() => groups.close());
    return groups;
  },
});

/** `io.containerd.runtime.v2.task`: the task runtime. Loads what the last daemon left running before it is ready. */
export const taskRuntime = definePlugin({
  type: PluginTypes.Runtime,
  id: 'task',
  requires: [PluginTypes.Shim, PluginTypes.Event, PluginTypes.Metadata, PluginTypes.MountManager],
  platforms: [`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`],
  config: schema({ platforms: field.strings([`linux/${process.arch === 'x64' ? 'amd64' : process.arch}`]) }),
  async init(context): Promise<TaskManager> {
    context.meta.exports['log-uri-schemes'] = 'fifo,binary,binary-v2,file';
    const groups = context.get(PluginTypes.Shim, 'manager') as ShimGroups;
    const tasks = new TaskManager({
      roots: { state: context.state, root: context.root },
      groups,
      cleanupTimeoutMs: context.daemon.timeout('io.containerd.timeout.shim.cleanup'),
      events: context.get(PluginTypes.Event),
      mounts: context.get(PluginTypes.MountManager),
      log: context.log,
    });
    await tasks.load();
    return tasks;
  },
});
