// `io.containerd.server.v1.grpc` and `grpc-tcp`: the sockets on which clients find every service.
import { readFile } from 'node:fs/promises';
import { GrpcServer, type TlsOptions } from '@gantry/rpc';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, type PluginContext, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { serverOptions } from './call-metrics.ts';
import type { ServerInstance } from './server-instance.ts';
import { removeSocket, unixAddressOf } from './unix-socket.ts';

const requires = [PluginTypes.Grpc, PluginTypes.Metrics];
const limit = 16 << 20;

/** How long calls in flight may go on at shutdown, in milliseconds. */
const grace = 1000;

/** A server with every service that started. */
function grpcServer(
  context: PluginContext<{ max_recv_message_size: number; max_send_message_size: number }>,
  tcp: boolean,
): GrpcServer {
  const server = new GrpcServer({
    ...serverOptions(context, 'grpc'),
    maxReceiveBytes: context.config.max_recv_message_size || limit,
    maxSendBytes: context.config.max_send_message_size || limit,
  });
  for (const set of context.all(PluginTypes.Grpc).values()) if (!(tcp && set.unixOnly)) set.register?.(server);
  return server;
}

export const grpcServerPlugin = definePlugin({
  type: PluginTypes.Server,
  id: 'grpc',
  requires,
  config: schema({
    address: field.path('/run/gantry/gantry.sock'),
    uid: field.integer(),
    gid: field.integer(),
    max_recv_message_size: field.integer(limit),
    max_send_message_size: field.integer(limit),
  }),
  init: (context): unknown => {
    const { address, uid, gid } = context.config;
    if (address === '') throw new PluginSkip('no address');
    const server = grpcServer(context, false);
    const instance: ServerInstance = {
      start: async () => {
        await server.listenUnix(unixAddressOf(address), { uid, gid });
        context.onClose(async () => {
          await server.close(grace);
          removeSocket(address);
        });
        context.log.info('serving...', { address });
      },
      describe: () => ({ address, services: server.services, calls: server.activeCalls }),
    };
    return instance;
  },
});

async function tlsOptions(config: {
  tls_ca: string;
  tls_cert: string;
  tls_key: string;
  tls_common_name: string;
}): Promise<TlsOptions | undefined> {
  if (config.tls_cert === '' && config.tls_key === '') return undefined;
  return {
    cert: await readFile(config.tls_cert),
    key: await readFile(config.tls_key),
    ...(config.tls_ca !== '' && { clientCa: await readFile(config.tls_ca), requireClientCert: true }),
    ...(config.tls_common_name !== '' && { commonName: config.tls_common_name }),
  };
}

export const grpcTcpServerPlugin = definePlugin({
  type: PluginTypes.Server,
  id: 'grpc-tcp',
  requires,
  config: schema({
    address: field.string('', (text) =>
      text === '' || /:\d+$/.test(text) ? undefined : 'an address such as "127.0.0.1:1234"',
    ),
    tls_ca: field.path(),
    tls_cert: field.path(),
    tls_key: field.path(),
    tls_common_name: field.string(),
    max_recv_message_size: field.integer(limit),
    max_send_message_size: field.integer(limit),
  }),
  init: async (context): Promise<unknown> => {
    const { address } = context.config;
    if (address === '') throw new PluginSkip('no address');
    const tls = await tlsOptions(context.config);
    if (!tls) context.log.warn('the TCP address is served without TLS: whoever reaches it is root here', { address });
    const server = grpcServer(context, true);
    const instance: ServerInstance = {
      start: async () => {
        const port = await server.listenTcp(address, tls);
        context.meta.exports['port'] = String(port);
        context.onClose(() => server.close(grace));
        context.log.info('serving...', { address, port, tls: tls !== undefined });
      },
      describe: () => ({ address, services: server.services, calls: server.activeCalls }),
    };
    return instance;
  },
});
