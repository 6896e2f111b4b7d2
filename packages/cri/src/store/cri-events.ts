import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ContainerEventResponseSchema } from '@gantry/api/gen/cri/v1/api_pb.js';

export type ContainerEvent = MessageInitShape<typeof ContainerEventResponseSchema>;

/** A subscriber this far behind loses the oldest: the kubelet lists everything from time to time anyway. */
const longestQueue = 1000;

/** What happened to pods and containers, for those who call GetContainerEvents. */
export class CriEvents {
  /** Events that a subscriber was too slow for. */
  dropped = 0;
  readonly #subscribers = new Set<(event: ContainerEvent) => void>();
  /** What happened before anybody could subscribe. */
  #kept: ContainerEvent[] | undefined;

  get wanted(): boolean {
    return this.#subscribers.size > 0 || this.#kept !== undefined;
  }

  publish(event: ContainerEvent): void {
    for (const subscriber of this.#subscribers) subscriber(event);
    if (this.#kept && this.#kept.length < longestQueue) this.#kept.push(event);
  }

  /**
   * From now on events are kept for the first subscriber, but not longer than so many milliseconds: of what ended while no daemon was
   * there nobody else would tell.
   */
  keepForFirst(forMs: number): void {
    this.#kept = [];
    setTimeout(() => {
      this.#kept = undefined;
    }, forMs).unref();
  }

  /** From now on, and what was kept for it, until the signal aborts. */
  subscribe(signal: AbortSignal): AsyncIterable<ContainerEvent> {
    const queue: ContainerEvent[] = this.#kept ?? [];
    this.#kept = undefined;
    let wake: (() => void) | undefined;
    const subscriber = (event: ContainerEvent): void => {
      if (queue.push(event) > longestQueue) {
        queue.shift();
        this.dropped += 1;
      }
      wake?.();
    };
    this.#subscribers.add(subscriber);
    const end = (): void => {
      this.#subscribers.delete(subscriber);
      wake?.();
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
    return (async function* () {
      try {
        while (!signal.aborted) {
          const event = queue.shift();
          if (event) {
            yield event;
            continue;
          }
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        signal.removeEventListener('abort', end);
        end();
      }
    })();
  }
}
