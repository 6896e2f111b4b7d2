// `grpc.health.v1.Health`: the daemon serves from the moment its sockets are open until they close.
import { notFound } from '@gantry/api';
import { Health, HealthCheckResponse_ServingStatus as Status } from '@gantry/api/gen/grpc/health/v1/health_pb.js';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';

/** Ends when the caller goes, or with the server. */
function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

export const healthcheckPlugin = definePlugin({
  type: PluginTypes.Grpc,
  id: 'healthcheck',
  init: () => ({
    register: (grpc) =>
      grpc.add(Health, {
        // As containerd, only the server as a whole is known.
        check: (request) => {
          if (request.service !== '') throw notFound(`unknown service`);
          return { status: Status.SERVING };
        },
        async *watch(request, context) {
          yield { status: request.service === '' ? Status.SERVING : Status.SERVICE_UNKNOWN };
          await aborted(context.signal);
        },
      }),
  }),
});
