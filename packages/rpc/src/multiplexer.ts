import { Duplex } from 'node:stream';

/** A frame carries no more than one message of ttrpc with its header. */
const maxPayload = 10 + (4 << 20);
const headerLength = 8;
/**
 * The first frame of a message carries no more: the reference reads a header through a buffer of so many bytes and fails on a frame that
 * is larger. What then remains it reads in one piece, and small pieces would overrun its queue.
 */
const maxFirst = 4096;
/** What may wait in a connection that is not read before the trunk is held up for it, bytes. */
const held = 8 << 20;

/**
 * Several connections over one, as NRI has them: frames of a connection's number and a length (32 bits each, big endian) and so many
 * bytes. Nothing tells the other side that a connection is opened or closed; both know the numbers.
 */
export class Multiplexer {
  readonly #trunk: Duplex;
  readonly #connections = new Map<number, Branch>();
  readonly #stalled = new Set<Branch>();
  #received: Buffer[] = [];
  #size = 0;

  /** Owns the trunk: when that closes, so do all connections, and the other way round with `close`. */
  constructor(trunk: Duplex) {
    this.#trunk = trunk;
    trunk.on('data', (chunk: Buffer) => this.#receive(chunk));
    trunk.on('error', () => undefined);
    trunk.on('end', () => this.close());
    trunk.on('close', () => this.close());
  }

  /** The connection of that number, of which there is one. What comes for numbers never opened is dropped. */
  open(number: number): Duplex {
    let branch = this.#connections.get(number);
    if (!branch) {
      branch = new Branch(this, number);
      this.#connections.set(number, branch);
    }
    return branch;
  }

  close(): void {
    this.#trunk.destroy();
    for (const branch of this.#connections.values()) branch.destroy();
  }

  /** For connections only. */
  send(number: number, bytes: Buffer, sent: (error?: Error | null) => void): void {
    let at = 0;
    do {
      const payload = bytes.subarray(at, at + (at === 0 ? maxFirst : maxPayload));
      at += payload.length;
      const header = Buffer.alloc(headerLength);
      header.writeUInt32BE(number);
      header.writeUInt32BE(payload.length, 4);
      this.#trunk.write(header);
      if (at < bytes.length) this.#trunk.write(payload);
      else this.#trunk.write(payload, sent);
    } while (at < bytes.length);
  }

  /** For connections only: whether one has as much as it can hold. */
  stall(branch: Branch, stalled: boolean): void {
    if (stalled) {
      this.#stalled.add(branch);
      this.#trunk.pause();
    } else if (this.#stalled.delete(branch) && this.#stalled.size === 0) this.#trunk.resume();
  }

  #receive(chunk: Buffer): void {
    this.#received.push(chunk);
    this.#size += chunk.length;
    while (this.#size >= headerLength) {
      const header = this.#first(headerLength);
      const length = header.readUInt32BE(4);
      if (length > maxPayload) {
        this.close();
        return;
      }
      if (this.#size < headerLength + length) return;
      const number = header.readUInt32BE(0);
      const payload = this.#first(headerLength + length).subarray(headerLength, headerLength + length);
      this.#drop(headerLength + length);
      if (length > 0) this.#connections.get(number)?.received(payload);
    }
  }

  /** What was received, with at least so many bytes in one piece. */
  #first(length: number): Buffer {
    if (this.#received[0]!.length < length) this.#received = [Buffer.concat(this.#received)];
    return this.#received[0]!;
  }

  #drop(length: number): void {
    const rest = this.#received[0]!.subarray(length);
    if (rest.length > 0) this.#received[0] = rest;
    else this.#received.shift();
    this.#size -= length;
  }
}

class Branch extends Duplex {
  readonly #multiplexer: Multiplexer;
  readonly #number: number;

  constructor(multiplexer: Multiplexer, number: number) {
    super({ allowHalfOpen: true, readableHighWaterMark: held });
    this.#multiplexer = multiplexer;
    this.#number = number;
    this.on('error', () => undefined);
  }

  received(bytes: Buffer): void {
    if (!this.destroyed && !this.push(bytes)) this.#multiplexer.stall(this, true);
  }

  override _read(): void {
    this.#multiplexer.stall(this, false);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#multiplexer.send(this.#number, chunk, done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#multiplexer.stall(this, false);
    // A trunk whose service has ended is of no use: the other side learns of it so only.
    this.#multiplexer.close();
    done(error);
  }
}
