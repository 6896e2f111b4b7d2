// `io.containerd.server.v1.ttrpc`: the socket on which shims tell of events.
import { TtrpcServer } from '@gantry/rpc';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { serverOptions } from './call-metrics.ts';
import type { ServerInstance } from './server-instance.ts';
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
    const server = new TtrpcServer(serverOptions(context, 'ttrpc'));
    for (const type of [PluginTypes.Grpc, PluginTypes.Ttrpc]) {
      for (const set of context.all(type).values()) set.registerTtrpc?.(server);
    }
    const instance: ServerInstance = {
      start: async () => {
        await server.listenUnix(unixAddressOf(address), { uid, gid });
        context.onClose(async () => {
          await server.close();
          removeSocket(address);
        });
        context.log.info('serving...', { address });
      },
      describe: () => ({ address }),
    };
    return instance;
  },
});
