// `io.containerd.server.v1.live`, Gantry's own: a page that shows what the daemon has and does. Off without an address. docs/live-page.md
import { rmSync } from 'node:fs';
import type { RequestListener, Server } from 'node:http';
import { listenUnix } from '@gantry/rpc';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { loopbackAddress } from './loopback.ts';

/** Milliseconds: samples more often than this would be the load that they show. */
const shortestInterval = 500;

export const livePlugin = definePlugin({
  type: PluginTypes.Server,
  id: 'live',
  requires: [
    PluginTypes.Event,
    PluginTypes.Metadata,
    PluginTypes.Service,
    PluginTypes.Transfer,
    PluginTypes.Warning,
    PluginTypes.Metrics,
  ],
  config: schema({
    address: field.string('', (text) =>
      text === '' || text.startsWith('/') || loopbackAddress(text)
        ? undefined
        : 'the path of a unix socket, or an address of this machine alone, as "127.0.0.1:8080"',
    ),
    uid: field.integer(),
    gid: field.integer(),
    interval: field.duration('2s'),
  }),
  init(context): unknown {
    const { address, uid, gid, interval } = context.config;
    if (address === '') throw new PluginSkip('no address');
    // Loaded for the first who looks.
    let listener: Promise<{ listen: RequestListener; close(): void }> | undefined;
    const server: Server = process.getBuiltinModule('node:http').createServer(async (request, response) => {
      listener ??= import('./live-http.ts').then(({ liveListener }) =>
        liveListener(context, Math.max(interval, shortestInterval)),
      );
      (await listener).listen(request, response);
    });
    return {
      start: async () => {
        if (address.startsWith('/')) await listenUnix(server, address, { uid, gid, mode: 0o600 });
        else await listenTcp(server, loopbackAddress(address)!);
        const bound = server.address();
        if (typeof bound === 'object' && bound) context.meta.exports['port'] = String(bound.port);
        context.onClose(async () => {
          (await listener)?.close();
          const closed = new Promise<void>((resolve) => server.close(() => resolve()));
          server.closeAllConnections();
          await closed;
          if (address.startsWith('/')) rmSync(address, { force: true });
        });
        context.log.info('serving...', { address });
      },
      describe: () => ({ address }),
    };
  },
});

function listenTcp(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, resolve);
  });
}
