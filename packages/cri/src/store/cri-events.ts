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

  get wanted(): boolean {
    return this.#subscribers.size > 0;
  }

  publish(event: ContainerEvent): void {
    for (const subscriber of this.#subscribers) subscriber(event);
  }

  /** From now on, until the signal aborts. */
  subscribe(signal: AbortSignal): AsyncIterable<ContainerEvent> {
    const queue: ContainerEvent[] = [];
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
