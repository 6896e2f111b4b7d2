// `io.containerd.server.v1.ttrpc`: the socket on which shims tell of events.
import { TtrpcServer } from '@gantry/rpc';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { TaskRuntime } from '../../core/tasks/task-runtime.ts';
import { serverOptions } from './call-metrics.ts';
import type { ServerInstance } from './server-instance.ts';
import { TakenSockets } from './taken-sockets.ts';
import { removeSocket, unixAddressOf } from './unix-socket.ts';

export const ttrpcServerPlugin = definePlugin({
  type: PluginTypes.Server,
  id: 'ttrpc',
  requires: [PluginTypes.Grpc, PluginTypes.Ttrpc, PluginTypes.Metrics],
  config: schema({
    address: field.path('/run/gantry/gantry.sock.ttrpc'),
    uid: field.integer(),
    gid: field.integer(),
  }),
  init: (context): unknown => {
    const { uid, gid } = context.config;
    // The daemon settles the address: without one of its own it is that of the main socket and `.ttrpc`.
    const address = context.daemon.ttrpcAddress;
    if (address === '') throw new PluginSkip('no address');
    const newServer = (): TtrpcServer => {
      const server = new TtrpcServer(serverOptions(context, 'ttrpc'));
      for (const type of [PluginTypes.Grpc, PluginTypes.Ttrpc]) {
        for (const set of context.all(type).values()) set.registerTtrpc?.(server);
      }
      return server;
    };
    const server = newServer();
    const taken = new TakenSockets(newServer, context.log);
    const runtime = context.all(PluginTypes.Runtime).get('task') as TaskRuntime | undefined;
    const instance: ServerInstance = {
      start: async () => {
        await server.listenUnix(unixAddressOf(address), { uid, gid });
        context.onClose(async () => {
          await server.close();
          removeSocket(address);
          await taken.close();
        });
        const wanted = () => [...(runtime?.takenAddresses?.() ?? [])].filter((one) => one !== address);
        await taken.listen(wanted());
        runtime?.onTakenGone?.(() => taken.keep(new Set(wanted())));
        context.log.info('serving...', { address });
      },
      describe: () => ({ address }),
    };
    return instance;
  },
});
