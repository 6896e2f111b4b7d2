/** Byte chunks over a MessagePort with flow control, in either direction between the main thread and a worker. */
import type { MessagePort } from 'node:worker_threads';

type PortMessage = { data: Uint8Array } | { end: true } | { error: string };

/** Chunks on their way before the first must have been taken. */
const IN_FLIGHT = 8;

export class PortSender {
  readonly #port: MessagePort;
  #inFlight = 0;
  #closed = false;
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(port: MessagePort) {
    this.#port = port;
    port.on('message', () => {
      this.#inFlight--;
      this.#wake?.();
    });
    port.on('close', () => {
      this.#closed = true;
      this.#wake?.();
    });
  }

  /** Whether the receiver has gone. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Sends a copy; waits while the receiver is behind. @throws if the receiver has gone. */
  async send(chunk: Uint8Array): Promise<void> {
    while (this.#inFlight >= IN_FLIGHT && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#closed) throw new Error('the receiver of the bytes went away');
    this.#inFlight++;
    // A view would be cloned with all of the memory it is a view of.
    const data = new Uint8Array(chunk);
    this.#port.postMessage({ data }, [data.buffer]);
  }

  /** Ends the chunks, or tells why there are no more. The receiver closes the port. */
  end(error?: Error): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    this.#port.postMessage(error ? { error: error.message } : { end: true });
    // Delivered all the same; but nobody has to stay alive for the answers.
    this.#port.unref();
  }
}

/** The chunks that a `PortSender` sends. Closes the port when done, or when the loop is left. */
export async function* chunksFromPort(port: MessagePort, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const queue: PortMessage[] = [];
  let wake: (() => void) | undefined;
  const onAbort = () => wake?.();
  port.on('message', (message: PortMessage) => {
    queue.push(message);
    wake?.();
  });
  port.on('close', () => {
    queue.push({ error: 'unexpected EOF: the sender went away' });
    wake?.();
  });
  signal?.addEventListener('abort', onAbort);
  try {
    for (;;) {
      signal?.throwIfAborted();
      const message = queue.shift();
      if (!message) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
        continue;
      }
      if ('error' in message) throw new Error(message.error);
      if ('end' in message) return;
      yield Buffer.from(message.data.buffer as ArrayBuffer, message.data.byteOffset, message.data.byteLength);
      port.postMessage('more');
    }
  } finally {
    signal?.removeEventListener('abort', onAbort);
    port.close();
  }
}

/** Sends all chunks. Resolves when they are sent, or the receiver closed its end early. A failure reaches the receiver too. */
export async function pumpToPort(chunks: AsyncIterable<Uint8Array>, port: MessagePort): Promise<void> {
  const sender = new PortSender(port);
  try {
    for await (const chunk of chunks) {
      if (sender.closed) return;
      await sender.send(chunk);
    }
    sender.end();
  } catch (error) {
    if (sender.closed) return;
    sender.end(error instanceof Error ? error : new Error(String(error)));
    throw error;
  }
}
