import type { Duplex } from 'node:stream';

/** Bytes that may wait for the peer before no more data are made ready for it. */
const highWater = 1 << 20;
/** Up to here a copy is cheaper than to have the kernel gather pieces. */
const copyLimit = 16 << 10;

/** What goes out on a connection: everything of one turn of the event loop in one write. */
export class Output {
  readonly #socket: Duplex;
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #written: (() => void)[] = [];
  #scheduled = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** Bytes that the peer has not taken yet. */
  get waiting(): number {
    return this.#bytes + this.#socket.writableLength;
  }

  /** Whether data should wait for the socket's `drain`. */
  get full(): boolean {
    return this.waiting >= highWater;
  }

  /** @param written called when the bytes are not needed any more; never, if the connection breaks */
  push(bytes: Uint8Array, written?: () => void): void {
    this.#pieces.push(bytes);
    this.#bytes += bytes.length;
    if (written) this.#written.push(written);
    if (this.#scheduled) return;
    this.#scheduled = true;
    process.nextTick(flushOutput, this);
  }

  flush(): void {
    this.#scheduled = false;
    const pieces = this.#pieces;
    if (pieces.length === 0) return;
    const socket = this.#socket;
    const bytes = this.#bytes;
    const written = this.#written;
    this.#pieces = [];
    this.#bytes = 0;
    if (written.length > 0) this.#written = [];
    if (!socket.writable) return;
    const done =
      written.length === 0
        ? undefined
        : (error?: Error | null) => {
            if (!error) for (const tell of written) tell();
          };
    if (pieces.length === 1) socket.write(pieces[0], done);
    else if (bytes <= copyLimit) socket.write(Buffer.concat(pieces, bytes), done);
    else {
      socket.cork();
      for (const [index, piece] of pieces.entries())
        socket.write(piece, index === pieces.length - 1 ? done : undefined);
      socket.uncork();
    }
  }
}

function flushOutput(output: Output): void {
  output.flush();
}
