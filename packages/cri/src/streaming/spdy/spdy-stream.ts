import { Duplex } from 'node:stream';
import type { Headers } from './header-codec.ts';
import type { SpdyConnection } from './spdy-connection.ts';

/** What may wait in a stream that is not read before the connection is held up for it, bytes. */
const held = 1 << 20;

/** One stream of a SPDY connection. Either side may end before the other. */
export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: Headers;
  /** Settles when the client has been told that it is taken. */
  readonly open: Promise<void>;
  readonly #connection: SpdyConnection;
  readonly #opened = Promise.withResolvers<void>();
  #finished = false;

  constructor(connection: SpdyConnection, id: number, headers: Headers) {
    super({ allowHalfOpen: true, readableHighWaterMark: held });
    this.#connection = connection;
    this.id = id;
    this.headers = headers;
    this.open = this.#opened.promise;
    this.on('error', () => undefined);
  }

  /** For the connection only. */
  replied(): void {
    this.#opened.resolve();
  }

  /** For the connection only: data, or null for its end. */
  received(bytes: Buffer | null): void {
    if (this.destroyed || this.readableEnded) return;
    if (!this.push(bytes) && bytes !== null) this.#connection.stall(this, true);
  }

  /** For the connection only: the client wants no more of it. */
  wasReset(): void {
    this.#finished = true;
    this.destroy();
  }

  override _read(): void {
    this.#connection.stall(this, false);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#connection.send(this.id, chunk, false, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#finished = true;
    this.#connection.send(this.id, Buffer.alloc(0), true, done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.#finished) this.#connection.reset(this.id);
    this.#connection.forget(this);
    this.#opened.resolve();
    done(error);
  }
}
