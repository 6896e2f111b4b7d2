import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { compareTime, invalidArgument, now, packAny, StatusError } from '@gantry/api';
import { parseFilters } from '../filters/parse-filters.ts';
import { validateIdentifier } from '../validation/identifier.ts';
import { eventLookup } from './event-lookup.ts';
import type { Envelope, EventExchange } from './exchange.ts';

/** A subscriber this far behind is dropped with an error: it would take the daemon's memory with it. */
const longestQueue = 100_000;

/** Clients of a daemon that died come back within seconds: grpc-go waits 1 s after a refused connection, then 1.6 s more, and so on. */
const missedForMs = 30_000;

/**
 * The daemon's event bus, in memory: listeners are called at once, subscribers have a queue each. What shims kept while no
 * daemon was there (events older than this bus) comes in as soon as it is up, which is before clients have connected again: for
 * half a minute a new subscriber gets those too, so that none misses the end of a container.
 */
export class Exchange implements EventExchange {
  readonly #listeners = new Set<(envelope: Envelope) => void>();
  readonly #since = now();
  #missed: Envelope[] | undefined = [];

  constructor() {
    setTimeout(() => {
      this.#missed = undefined;
    }, missedForMs).unref();
  }

  publish(namespace: string, topic: string, event: Any): void {
    validateTopic(topic);
    validateNamespace(namespace);
    this.#send({ timestamp: now(), namespace, topic, event });
  }

  publishMessage<D extends DescMessage>(
    namespace: string,
    topic: string,
    schema: D,
    message: MessageInitShape<D>,
  ): void {
    if (this.#listeners.size === 0) return;
    this.#send({ timestamp: now(), namespace, topic, event: packAny(schema, message) });
  }

  forward(envelope: Envelope): void {
    validateTopic(envelope.topic);
    validateNamespace(envelope.namespace);
    if (this.#missed && this.#missed.length < longestQueue && compareTime(envelope.timestamp, this.#since) < 0) {
      this.#missed.push(envelope);
    }
    this.#send(envelope);
  }

  #send(envelope: Envelope): void {
    for (const listener of this.#listeners) listener(envelope);
  }

  listen(listener: (envelope: Envelope) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The subscription begins at the call, not at the first read. */
  subscribe(filters: string[], signal: AbortSignal): AsyncIterable<Envelope> {
    const filter = parseFilters(filters);
    const queue = (this.#missed ?? []).filter((envelope) => filter.matches(eventLookup(envelope)));
    let wake: (() => void) | undefined;
    let overrun = false;
    const stop = this.listen((envelope) => {
      if (!filter.matches(eventLookup(envelope))) return;
      if (queue.length >= longestQueue) overrun = true;
      else queue.push(envelope);
      wake?.();
    });
    const end = (): void => {
      stop();
      wake?.();
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
    return (async function* () {
      try {
        for (;;) {
          while (queue.length > 0) yield queue.shift()!;
          if (overrun) throw new StatusError(8, 'subscriber does not keep up with events: resource exhausted');
          if (signal.aborted) return;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        signal.removeEventListener('abort', end);
        stop();
      }
    })();
  }
}

function validateNamespace(namespace: string): void {
  try {
    validateIdentifier(namespace);
  } catch (error) {
    throw StatusError.wrap(error, 'event namespace');
  }
}

function validateTopic(topic: string): void {
  if (topic === '') throw invalidArgument('envelope topic must not be empty: invalid argument');
  if (!topic.startsWith('/')) throw invalidArgument(`topic "${topic}" must start with '/': invalid argument`);
  if (topic.length === 1) throw invalidArgument(`topic "${topic}" must have at least one component: invalid argument`);
  for (const component of topic.slice(1).split('/')) {
    try {
      validateIdentifier(component);
    } catch (error) {
      throw StatusError.wrap(error, `topic "${topic}"`);
    }
  }
}
