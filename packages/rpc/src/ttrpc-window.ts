import type { Duplex } from 'node:stream';

const stopAt = 16 << 20;
const goOnAt = 8 << 20;

/**
 * Bounds what waits in memory on one ttrpc connection. ttrpc has no flow control of its own, so when its readers fall behind
 * (or the peer does not take our answers) the whole connection is no longer read until they have caught up.
 */
export class ReceiveWindow {
  readonly #socket: Duplex;
  #bytes = 0;
  #blocked = 0;
  #paused = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** A message of that many bytes waits for its reader. */
  add(bytes: number): void {
    this.#bytes += bytes;
    this.#update();
  }

  take(bytes: number): void {
    this.#bytes -= bytes;
    this.#update();
  }

  /** Reads nothing until the promise (that the peer takes what we wrote) is fulfilled. */
  blockUntil(drained: Promise<void>): void {
    this.#blocked++;
    this.#update();
    void drained.then(() => {
      this.#blocked--;
      this.#update();
    });
  }

  #update(): void {
    if (!this.#paused && (this.#bytes > stopAt || this.#blocked > 0)) {
      this.#paused = true;
      this.#socket.pause();
    } else if (this.#paused && this.#bytes <= goOnAt && this.#blocked === 0) {
      this.#paused = false;
      this.#socket.resume();
    }
  }
}
