import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';
import type { Any, Timestamp } from '@bufbuild/protobuf/wkt';
import { Code, hasCode, now, packAny, type Span, toTimestamp, tracing } from '@gantry/api';
import { Events } from '@gantry/api/gen/services/ttrpc/events/v1/events_pb.js';
import { createClient } from '@gantry/rpc/client.ts';
import { type TtrpcTransport, ttrpcTransport } from '@gantry/rpc/ttrpc-client.ts';
import { log } from './log.ts';

interface Envelope {
  timestamp: Timestamp;
  namespace: string;
  topic: string;
  event: Any;
  /** The call that it happened in, if calls are traced. */
  cause?: Span | undefined;
}

/** Events that a daemon which stays away may miss; beyond this the oldest are dropped. */
const queueMax = 20_000;
const firstRetryMs = 50;
const lastRetryMs = 2000;
const callTimeoutMs = 10_000;
/** How often an event is sent that the daemon answers with an error, before it is given up. */
const attemptsMax = 5;

/**
 * Hands events to the daemon at its ttrpc address, one after the other in the order they were published. While the daemon is away
 * they wait, with the times at which they happened.
 */
export class Publisher {
  readonly #address: string;
  readonly #queue: Envelope[] = [];
  #transport: TtrpcTransport | undefined;
  #sending = false;
  #closed = false;
  #dropped = 0;
  #idle: (() => void)[] = [];

  /** Without an address every event is dropped: nobody asked for them. */
  constructor(address: string) {
    this.#address = address;
  }

  publish<D extends DescMessage>(namespace: string, topic: string, schema: D, event: MessageInitShape<D>): void {
    if (this.#address === '' || this.#closed) return;
    if (this.#queue.length >= queueMax) {
      this.#queue.shift();
      if (this.#dropped++ === 0) log.error('the daemon stays away: events are dropped');
    }
    const cause = tracing()?.current();
    this.#queue.push({ timestamp: toTimestamp(now()), namespace, topic, event: packAny(schema, event), cause });
    if (!this.#sending) void this.#send();
  }

  /** Resolves when all events so far have been handed over, or after the time. */
  async flush(timeoutMs: number): Promise<void> {
    if (!this.#sending) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idle.push(resolve);
    const timer = setTimeout(resolve, timeoutMs);
    await promise;
    clearTimeout(timer);
  }

  close(): void {
    this.#closed = true;
    void this.#transport?.close().catch(() => {});
  }

  async #send(): Promise<void> {
    this.#sending = true;
    let retryMs = firstRetryMs;
    let attempts = 0;
    for (let envelope = this.#queue[0]; envelope && !this.#closed; envelope = this.#queue[0]) {
      try {
        await this.#forward(envelope);
      } catch (error) {
        const refused = !hasCode(error, Code.Unavailable) && !hasCode(error, Code.DeadlineExceeded);
        if (!refused || ++attempts < attemptsMax) {
          log.debug('event not handed over yet', { topic: envelope.topic, error });
          await new Promise((resolve) => setTimeout(resolve, retryMs).unref());
          retryMs = Math.min(2 * retryMs, lastRetryMs);
          continue;
        }
        log.error('event given up', { topic: envelope.topic, namespace: envelope.namespace, error });
      }
      retryMs = firstRetryMs;
      attempts = 0;
      // It may be gone already, as the oldest of a queue that ran over.
      if (this.#queue[0] === envelope) this.#queue.shift();
    }
    this.#sending = false;
    this.#dropped = 0;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  async #forward({ cause, ...envelope }: Envelope): Promise<void> {
    if (!this.#transport || this.#transport.closed) {
      this.#transport = ttrpcTransport(this.#address);
      await this.#transport.ready();
    }
    const client = createClient(Events, this.#transport);
    const forward = () => client.forward({ envelope }, { namespace: envelope.namespace, timeoutMs: callTimeoutMs });
    await (cause ? tracing()?.within(cause, forward) : forward());
  }
}
