// The two servers that speak HTTP: metrics for Prometheus, and the debug socket for whoever is root.
import type { RequestListener, Server } from 'node:http';
import { callsInFlight, formatCall, listenUnix } from '@gantry/rpc';
import { Counter, Gauge } from '../../core/metrics/metrics-registry.ts';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin, type PluginContext, PluginSkip } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { activeResources } from '../dump.ts';
import { callMetrics } from './call-metrics.ts';
import type { ServerInstance } from './server-instance.ts';
import { removeSocket, unixAddressOf } from './unix-socket.ts';

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

/** `host:port`, `:port` for all addresses, or `[::1]:port`. */
function listenTcp(server: Server, address: string): Promise<void> {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: Number(address.slice(colon + 1)), ...(host !== '' && { host }) }, () => resolve());
  });
}

function serve(
  context: PluginContext<unknown>,
  address: string,
  owner: { uid: number; gid: number },
  listener: RequestListener,
): ServerInstance {
  // Imported as an ES module, node:http brings undici with it (20 ms), even where nobody listens.
  const server = process.getBuiltinModule('node:http').createServer(listener);
  return {
    start: async () => {
      if (address.startsWith('/')) await listenUnix(server, unixAddressOf(address), { ...owner, mode: 0o600 });
      else await listenTcp(server, address);
      const bound = server.address();
      if (typeof bound === 'object' && bound) context.meta.exports['port'] = String(bound.port);
      context.onClose(async () => {
        await closeServer(server);
        if (address.startsWith('/')) removeSocket(address);
      });
      context.log.info('serving...', { address });
    },
    describe: () => ({ address }),
  };
}

const httpAddress = (text: string): string | undefined =>
  text === '' || text.startsWith('/') || /:\d+$/.test(text) ? undefined : 'an address such as "127.0.0.1:1338"';

export const metricsServerPlugin = definePlugin({
  type: PluginTypes.Server,
  id: 'metrics',
  requires: [PluginTypes.Metrics],
  config: schema({ address: field.string('', httpAddress) }),
  init: (context): unknown => {
    const { address } = context.config;
    if (address === '') throw new PluginSkip('no address');
    const metrics = callMetrics(context);
    if (!metrics) throw new PluginSkip('metrics are disabled');
    const { registry } = metrics;
    const asked = registry.register(
      new Counter(
        'promhttp_metric_handler_requests_total',
        'Times that the metrics were asked for, by what was answered.',
      ),
    );
    for (const code of ['200', '500', '503']) asked.cell({ code });
    let inFlight = 0;
    registry.register(
      new Gauge(
        'promhttp_metric_handler_requests_in_flight',
        'How many ask for the metrics right now.',
        () => inFlight,
      ),
    );
    return serve(context, address, { uid: 0, gid: 0 }, async (request, response) => {
      if (request.url?.split('?')[0] !== '/v1/metrics') return void response.writeHead(404).end();
      inFlight++;
      response.on('close', () => {
        inFlight--;
        asked.add({ code: String(response.statusCode) });
      });
      response.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8');
      response.end(await registry.render());
    });
  },
});

export const debugServerPlugin = definePlugin({
  type: PluginTypes.Server,
  id: 'debug',
  requires: [PluginTypes.Metrics],
  config: schema({
    address: field.path(),
    uid: field.integer(),
    gid: field.integer(),
    /** Gantry: after how long a main thread that does not come back from what it does has its stack logged; 0 for never. */
    blocked_after: field.duration('1s'),
  }),
  init: (context): unknown => {
    const { address, uid, gid } = context.config;
    if (address === '') throw new PluginSkip('no address');
    let listener: Promise<RequestListener> | undefined;
    const server = serve(context, address, { uid, gid }, async (request, response) => {
      // Loaded for the first who asks: most daemons are never asked.
      listener ??= import('@gantry/sys/debug/debug-http.ts').then(({ debugListener }) =>
        debugListener({
          variables: () => ({ ...activeResources(), plugins: context.statuses(), calls: callsInFlight() }),
          activities: () => callsInFlight().map(formatCall),
        }),
      );
      (await listener)(request, response);
    });
    return {
      ...server,
      start: async () => {
        await server.start();
        startWatch(context, `${address}.watch`, context.config.blocked_after);
      },
    } satisfies ServerInstance;
  },
});

/** A second socket beside the first, for when the main thread answers nobody. That there is none is no reason not to have the first. */
function startWatch(context: PluginContext<unknown>, socket: string, blockedAfterMs: number): void {
  // Nobody waits for it: the daemon is ready without.
  const starting = import('@gantry/sys/debug/thread-watch.ts')
    .then(({ watchMainThread }) => watchMainThread({ socket, blockedAfterMs, logFormat: context.daemon.logFormat }))
    .catch((error: unknown) => {
      context.log.warn('the main thread is not watched', { error, socket });
      return undefined;
    });
  context.onClose(async () => (await starting)?.());
}
