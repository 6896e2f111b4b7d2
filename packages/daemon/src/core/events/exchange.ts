import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import type { Time } from '@gantry/api';

export interface Envelope {
  timestamp: Time;
  namespace: string;
  topic: string;
  event: Any;
}

/** The daemon's event bus. Publishing never waits for subscribers. */
export interface EventExchange {
  /** @throws InvalidArgument for a topic that is not `/a/b`, or a bad namespace. */
  publish(namespace: string, topic: string, event: Any): void;
  /** The same, packing a message. */
  publishMessage<D extends DescMessage>(
    namespace: string,
    topic: string,
    schema: D,
    message: MessageInitShape<D>,
  ): void;
  /** Passes on an event that has its envelope, as shims do. */
  forward(envelope: Envelope): void;
  /** Filters: `topic`, `namespace`, `event.<field path>`; any matches; none means all. Ends when the signal aborts.
   * Begins with what happened while no daemon was there, if that is not long ago. */
  subscribe(filters: string[], signal: AbortSignal): AsyncIterable<Envelope>;
  /** A synchronous listener for the daemon's own use; returns how to stop it. */
  listen(listener: (envelope: Envelope) => void): () => void;
}
