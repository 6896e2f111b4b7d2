import { Code, StatusError } from '@gantry/api';
import type { Content, ReadContentResponse } from '@gantry/api/gen/services/content/v1/content_pb.js';
import type { Client } from '@gantry/rpc';
import type { ContentReader } from '../../core/content/content-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { ProxyConnection } from './proxy-connection.ts';

/** Bytes of a blob that is fetched whole when it is opened. */
const small = 1 << 20;

/**
 * Reads a blob through Content.Read. One call, begun at the opening, brings the bytes for whoever reads from the start on; it also keeps
 * the blob readable when it is deleted meanwhile. Reads from elsewhere are calls of their own.
 */
export class ProxyReader implements ContentReader {
  readonly size: number;
  readonly #connection: ProxyConnection;
  readonly #client: Client<typeof Content>;
  readonly #digest: string;
  readonly #ctx: RequestContext | undefined;
  #stream: AsyncIterator<ReadContentResponse> | undefined;
  #whole: Uint8Array | undefined;
  /** What came of the stream and was not asked for yet, and where in the blob that begins. */
  #ahead: Uint8Array = new Uint8Array();
  #position = 0;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    connection: ProxyConnection,
    client: Client<typeof Content>,
    digest: string,
    size: number,
    ctx: RequestContext | undefined,
  ) {
    this.#connection = connection;
    this.#client = client;
    this.#digest = digest;
    this.size = size;
    this.#ctx = ctx;
  }

  static async open(
    connection: ProxyConnection,
    client: Client<typeof Content>,
    digest: string,
    size: number,
    ctx: RequestContext | undefined,
  ): Promise<ProxyReader> {
    const reader = new ProxyReader(connection, client, digest, size, ctx);
    if (size > 0) await reader.#begin();
    return reader;
  }

  async #begin(): Promise<void> {
    if (this.size <= small) {
      const whole = Buffer.allocUnsafeSlow(this.size);
      await this.#readApart(0, whole);
      this.#whole = whole;
      return;
    }
    const answers = this.#client.read({ digest: this.#digest }, this.#connection.options(this.#ctx));
    this.#stream = this.#connection.stream(answers);
    // Only once it answers, the other side has the blob open.
    await this.#fetch();
  }

  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    const reading = this.#turn.then(() => this.#read(offset, length, into));
    this.#turn = reading.catch(() => undefined);
    return reading;
  }

  async #read(offset: number, length: number, into: Uint8Array | undefined): Promise<Uint8Array> {
    const wanted = Math.max(0, Math.min(length, this.size - offset));
    if (wanted === 0) return new Uint8Array();
    if (this.#whole) return this.#whole.subarray(offset, offset + wanted);
    const bytes = into && into.length >= wanted ? into.subarray(0, wanted) : Buffer.allocUnsafeSlow(wanted);
    if (offset === this.#position && this.#stream) await this.#readOn(bytes);
    else await this.#readApart(offset, bytes);
    return bytes;
  }

  async #readOn(bytes: Uint8Array): Promise<void> {
    for (let filled = 0; filled < bytes.length; ) {
      if (this.#ahead.length === 0) await this.#fetch();
      const part = this.#ahead.subarray(0, bytes.length - filled);
      bytes.set(part, filled);
      filled += part.length;
      this.#position += part.length;
      this.#ahead = this.#ahead.subarray(part.length);
    }
  }

  async #fetch(): Promise<void> {
    const answer = await this.#stream!.next();
    if (answer.done) throw lost(`${this.#digest} ends before its ${this.size} bytes`);
    this.#ahead = answer.value.data;
  }

  async #readApart(offset: number, bytes: Uint8Array): Promise<void> {
    const request = { digest: this.#digest, offset: BigInt(offset), size: BigInt(bytes.length) };
    let filled = 0;
    const answers = this.#client.read(request, this.#connection.options(this.#ctx));
    for await (const { data } of this.#connection.stream(answers)) {
      const part = data.subarray(0, bytes.length - filled);
      bytes.set(part, filled);
      filled += part.length;
    }
    if (filled < bytes.length) throw lost(`${this.#digest} ends at ${offset + filled}, expected ${this.size} bytes`);
  }

  async close(): Promise<void> {
    const stream = this.#stream;
    this.#stream = undefined;
    await stream?.return?.();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function lost(message: string): StatusError {
  return new StatusError(Code.DataLoss, message);
}
