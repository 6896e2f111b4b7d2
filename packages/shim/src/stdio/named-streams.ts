import { alreadyExists, unavailable } from '@gantry/api';
import type { MessageStream } from '@gantry/rpc/message-stream.ts';

/** Streams that clients have opened by name, for other requests to pick up, and for processes whose standard streams they are. */
export class NamedStreams {
  readonly #open = new Map<string, MessageStream>();
  readonly #waiting = new Map<string, (stream: MessageStream) => void>();

  /** @throws StatusError AlreadyExists */
  add(namespace: string, name: string, stream: MessageStream): void {
    const key = `${namespace}/${name}`;
    if (this.#open.has(key)) throw alreadyExists(`stream "${name}": already exists`);
    this.#open.set(key, stream);
    void stream.closed.then(() => this.#open.delete(key));
    this.#waiting.get(key)?.(stream);
  }

  find(namespace: string, name: string): MessageStream | undefined {
    return this.#open.get(`${namespace}/${name}`);
  }

  /** The stream of that name, once there is one that has not ended. One may wait for each. @throws StatusError Unavailable once aborted */
  wait(namespace: string, name: string, signal: AbortSignal): Promise<MessageStream> {
    const key = `${namespace}/${name}`;
    const found = this.#open.get(key);
    if (found) return Promise.resolve(found);
    return new Promise((resolve, reject) => {
      const gone = (): void => {
        this.#waiting.delete(key);
        reject(unavailable(`stream "${name}" is not waited for any more`));
      };
      if (signal.aborted) return gone();
      signal.addEventListener('abort', gone, { once: true });
      this.#waiting.set(key, (stream) => {
        this.#waiting.delete(key);
        signal.removeEventListener('abort', gone);
        resolve(stream);
      });
    });
  }
}

/** Those of this process. */
export const namedStreams = new NamedStreams();
