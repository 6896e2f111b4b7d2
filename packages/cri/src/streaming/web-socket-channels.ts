import { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';

/** What may wait in a channel that is not read before the connection is held up for it, bytes. */
const held = 1 << 20;

/** The first byte of a message of v5 that ends a channel. */
const closeChannel = 255;

/** Of the protocols `channel.k8s.io`, `base64.channel.k8s.io` and their versions. */
export interface ChannelProtocol {
  /** As it was agreed; '' if the client asked for none. */
  name: string;
  /** Whether ends of channels are told. */
  closes: boolean;
}

/** Streams over one WebSocket: the first byte (or digit, in base64) of each message is the channel's number. */
export class WebSocketChannels {
  readonly #socket: WebSocket;
  readonly #protocol: ChannelProtocol;
  readonly #channels: Channel[];
  readonly #stalled = new Set<Channel>();
  readonly #gone = new AbortController();

  /** @param readable which channels the client may write to; what it writes to others is dropped */
  constructor(socket: WebSocket, protocol: ChannelProtocol, readable: readonly boolean[]) {
    this.#socket = socket;
    this.#protocol = protocol;
    this.#channels = readable.map((reads, number) => new Channel(this, number, reads));
    socket.on('message', (data) => this.#message(data));
    socket.on('error', () => undefined);
    socket.on('close', () => this.destroy());
  }

  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  channel(number: number): Duplex {
    return this.#channels[number]!;
  }

  /** Ends the connection after all that is to be sent. */
  close(): void {
    this.#socket.close(1000);
  }

  destroy(): void {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort();
    for (const channel of this.#channels) channel.destroy();
    this.#socket.terminate();
  }

  /** For channels only. */
  send(number: number, bytes: Buffer, sent: (error?: Error | null) => void): void {
    if (this.#socket.readyState !== this.#socket.OPEN) sent(new Error('the connection has ended'));
    else if (this.#isBase64) this.#socket.send(`${number}${bytes.toString('base64')}`, (error) => sent(error));
    else this.#socket.send(Buffer.concat([Buffer.of(number), bytes]), { binary: true }, (error) => sent(error));
  }

  /** For channels only: whether one has as much as it can hold. */
  stall(channel: Channel, stalled: boolean): void {
    if (stalled) {
      this.#stalled.add(channel);
      this.#socket.pause();
    } else if (this.#stalled.delete(channel) && this.#stalled.size === 0) this.#socket.resume();
  }

  get #isBase64(): boolean {
    return this.#protocol.name.includes('base64');
  }

  #message(data: RawData): void {
    const bytes = Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer);
    if (bytes.length === 0) return;
    const [first] = bytes as unknown as [number];
    if (this.#isBase64) this.#received(first - 0x30, Buffer.from(bytes.toString('latin1', 1), 'base64'));
    else if (first === closeChannel && this.#protocol.closes) this.#received(bytes[1] ?? closeChannel, null);
    else this.#received(first, bytes.subarray(1));
  }

  #received(number: number, bytes: Buffer | null): void {
    this.#channels[number]?.received(bytes);
  }
}

class Channel extends Duplex {
  readonly #connection: WebSocketChannels;
  readonly #number: number;
  readonly #reads: boolean;

  constructor(connection: WebSocketChannels, number: number, reads: boolean) {
    super({ allowHalfOpen: true, readableHighWaterMark: held });
    this.#connection = connection;
    this.#number = number;
    this.#reads = reads;
    this.on('error', () => undefined);
  }

  received(bytes: Buffer | null): void {
    if (!this.#reads || this.destroyed || this.readableEnded) return;
    // An empty message is none to a byte stream.
    if (bytes?.length === 0) return;
    if (!this.push(bytes) && bytes !== null) this.#connection.stall(this, true);
  }

  override _read(): void {
    this.#connection.stall(this, false);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#connection.send(this.#number, chunk, done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#connection.stall(this, false);
    done(error);
  }
}
