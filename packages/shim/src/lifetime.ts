/**
 * When the shim's process ends: once nobody needs it. A container, a place reserved by `start`, a request at work or a daemon's open
 * connection keeps it; a Shutdown lifts the last, because containerd sends one and then leaves its connection to us.
 */
export class Lifetime {
  readonly #options: LifetimeOptions;
  readonly #reserved = new Map<string, NodeJS.Timeout>();
  #busy = 0;
  #connections = 0;
  #shutdownAsked = false;
  #timer: NodeJS.Timeout | undefined;
  #closing = false;

  constructor(options: LifetimeOptions) {
    this.#options = options;
  }

  /** Whether the end has begun: new containers must go to another process. */
  get closing(): boolean {
    return this.#closing;
  }

  /** Keeps a place for a container that is about to be created. @returns false if it is too late */
  reserve(namespace: string, id: string): boolean {
    if (this.#closing) return false;
    this.release(namespace, id);
    const key = `${namespace}/${id}`;
    const timer = setTimeout(() => this.release(namespace, id), this.#options.reservationMs);
    timer.unref();
    this.#reserved.set(key, timer);
    this.check();
    return true;
  }

  release(namespace: string, id: string): void {
    const key = `${namespace}/${id}`;
    clearTimeout(this.#reserved.get(key));
    if (this.#reserved.delete(key)) this.check();
  }

  /** Runs a request that must not be cut off. */
  async busy<T>(work: () => Promise<T>): Promise<T> {
    this.#busy++;
    this.check();
    try {
      return await work();
    } finally {
      this.#busy--;
      this.check();
    }
  }

  connected(): void {
    this.#connections++;
    this.#shutdownAsked = false;
    this.check();
  }

  disconnected(): void {
    this.#connections--;
    this.check();
  }

  /** A client wants the process to end. With `now` it does not linger, but a container still keeps it. */
  shutdown(now: boolean): void {
    this.#shutdownAsked = true;
    this.check();
    // Answered first.
    if (now && this.#unneeded()) setTimeout(() => this.#unneeded() && this.#end(), 20);
  }

  /** To be called whenever something changed that may have kept the process. */
  check(): void {
    if (this.#closing) return;
    if (!this.#unneeded()) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    } else this.#timer ??= setTimeout(() => this.#end(), this.#options.lingerMs);
  }

  #unneeded(): boolean {
    const held = this.#options.containers() + this.#reserved.size + this.#busy;
    return held === 0 && (this.#connections === 0 || this.#shutdownAsked);
  }

  #end(): void {
    if (this.#closing || !this.#unneeded()) return;
    this.#closing = true;
    this.#options.onEnd();
  }
}

export interface LifetimeOptions {
  /** How many containers there are. */
  containers(): number;
  /** How long it stays when nobody needs it: the next container may be on its way. Milliseconds. */
  lingerMs: number;
  /** How long a place is kept for a container whose Create does not come. Milliseconds. */
  reservationMs: number;
  onEnd(): void;
}
