import type { Any } from '@bufbuild/protobuf/wkt';
import { type Time, toTimestamp } from '@gantry/api';
import { Events as EventsService } from '@gantry/api/gen/services/events/v1/events_pb.js';
import type { Envelope } from '@gantry/api/gen/types/event_pb.js';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { anyToJson, type Decoded, decodeAny } from './known-messages.ts';
import { momentFromWire } from './time.ts';

/** Something that happened. */
export interface Event {
  readonly timestamp: Time | undefined;
  readonly namespace: string;
  /** As `/tasks/exit`. */
  readonly topic: string;
  readonly event: Any | undefined;
  /** The message in it, if its type is known. */
  decode(): Decoded | undefined;
  /** The message as JSON with containerd's field names. */
  json(): unknown;
}

/** What the daemon, and others through it, publish. */
export class Events {
  readonly #service: Client<typeof EventsService>;

  constructor(transport: Transport) {
    this.#service = createClient(EventsService, transport);
  }

  /**
   * Events of all namespaces from now on, until the reader leaves or the signal aborts. Filters as containerd has them
   * (`topic~="/tasks/.*"`, `namespace==k8s.io`, `event.container_id==x`); one that fits is enough. The subscription starts
   * with this call, not with the first event asked for; whoever never reads it must abort it.
   */
  subscribe(filters: string[] = [], options?: CallOptions): AsyncIterableIterator<Event> {
    const envelopes = this.#service.subscribe({ filters }, options)[Symbol.asyncIterator]();
    const iterator: AsyncIterableIterator<Event> = {
      next: async () => {
        const result = await envelopes.next();
        return result.done ? { done: true, value: undefined } : { done: false, value: fromWire(result.value) };
      },
      return: async () => {
        await envelopes.return?.();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  /** Publishes in the client's namespace, with the time of the daemon. */
  async publish(topic: string, event: Any, options?: CallOptions): Promise<void> {
    await this.#service.publish({ topic, event }, options);
  }

  /** Publishes an event as it is, with a time and a namespace of its own. */
  async forward(
    event: { timestamp: Time; namespace: string; topic: string; event: Any },
    options?: CallOptions,
  ): Promise<void> {
    await this.#service.forward({ envelope: { ...event, timestamp: toTimestamp(event.timestamp) } }, options);
  }
}

function fromWire(envelope: Envelope): Event {
  const { event } = envelope;
  return {
    timestamp: momentFromWire(envelope.timestamp),
    namespace: envelope.namespace,
    topic: envelope.topic,
    event,
    decode: () => event && decodeAny(event),
    json: () => event && anyToJson(event),
  };
}
