import { fromTimestamp, invalidArgument, now, toTimestamp } from '@gantry/api';
import { Events } from '@gantry/api/gen/services/events/v1/events_pb.js';
import { Events as TtrpcEvents } from '@gantry/api/gen/services/ttrpc/events/v1/events_pb.js';
import type { Envelope as WireEnvelope } from '@gantry/api/gen/types/event_pb.js';
import type { Implementation } from '@gantry/rpc';
import type { Envelope, EventExchange } from '../core/events/exchange.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.grpc.v1.events`: containerd.services.events.v1.Events, and the ttrpc service to which shims forward. */
export const eventsGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'events',
  requires: [PluginTypes.Event],
  init(context): ServiceSet {
    const exchange = context.get(PluginTypes.Event);
    return {
      register: (grpc) => grpc.add(Events, eventsService(exchange)),
      registerTtrpc: (ttrpc) => ttrpc.add(TtrpcEvents, ttrpcEventsService(exchange)),
    };
  },
});

/** The Events service over an exchange. */
export function eventsService(exchange: EventExchange): Implementation<typeof Events> {
  return {
    publish(request, call) {
      if (!request.event) throw invalidArgument('event must be given: invalid argument');
      exchange.publish(requestContext(call).namespace, request.topic, request.event);
      return {};
    },
    forward(request) {
      exchange.forward(fromWire(request.envelope));
      return {};
    },
    async *subscribe(request, call) {
      const events = exchange.subscribe(request.filters, call.signal);
      // A client that waits for the headers knows that from now on it misses nothing.
      call.sendHeaders({});
      for await (const { timestamp, ...envelope } of events) {
        yield { ...envelope, timestamp: toTimestamp(timestamp) };
      }
    },
  };
}

/** What shims report to. */
export function ttrpcEventsService(exchange: EventExchange): Implementation<typeof TtrpcEvents> {
  return {
    forward(request) {
      exchange.forward(fromWire(request.envelope));
      return {};
    },
  };
}

function fromWire(envelope: WireEnvelope | undefined): Envelope {
  if (!envelope?.event) throw invalidArgument('envelope must have an event: invalid argument');
  const { namespace, topic, event } = envelope;
  return { timestamp: fromTimestamp(envelope.timestamp) ?? now(), namespace, topic, event };
}
