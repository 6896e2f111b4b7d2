import type { Logger } from '../../core/log/logger.ts';

/** A part of the state: how it is read, and what of the daemon's events makes it worth reading again. */
export interface LiveSource {
  readonly name: string;
  /** Read at every interval; else only when `stale` says so. */
  readonly always?: boolean;
  /** Whether an event of this topic may have changed it. */
  stale?(topic: string): boolean;
  read(): unknown;
}

export interface LiveSources {
  readonly sources: readonly LiveSource[];
  /** Calls back for every event of the daemon, until what it returns is called. */
  listen(onEvent: (topic: string, event: LiveEvent) => void): () => void;
}

/** An event as the page shows it. */
export interface LiveEvent {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly namespace: string;
  readonly topic: string;
  readonly detail: unknown;
}

export interface Viewer {
  send(name: string, json: string): void;
  ready(): boolean;
  end(): void;
}

const eventsMax = 200;

/** Reads the state while somebody looks, and tells viewers what has changed. Without viewers it does nothing at all. */
export class LiveFeed {
  readonly #sources: LiveSources;
  readonly #intervalMs: number;
  readonly #log: Logger;
  /** What each viewer was sent last, by part. */
  readonly #viewers = new Map<Viewer, Map<string, string>>();
  readonly #latest = new Map<string, string>();
  readonly #stale = new Set<LiveSource>();
  #events: LiveEvent[] = [];
  #eventsChanged = false;
  #timer: NodeJS.Timeout | undefined;
  #stop: (() => void) | undefined;
  #reading: Promise<void> | undefined;

  constructor(sources: LiveSources, intervalMs: number, log: Logger) {
    this.#sources = sources;
    this.#intervalMs = intervalMs;
    this.#log = log;
  }

  get viewers(): number {
    return this.#viewers.size;
  }

  /** Adds a viewer, which gets the whole state and then what changes. @returns how it leaves */
  join(viewer: Viewer): () => void {
    this.#viewers.set(viewer, new Map());
    if (this.#viewers.size === 1) this.#begin();
    else this.#tell();
    return () => {
      this.#viewers.delete(viewer);
      if (this.#viewers.size === 0) this.#end();
    };
  }

  /** The whole state once, for programs. */
  async snapshot(): Promise<Record<string, unknown>> {
    const parts = this.#sources.sources.map(async (source) => [source.name, await source.read()] as const);
    return Object.fromEntries(await Promise.all(parts));
  }

  close(): void {
    for (const viewer of [...this.#viewers.keys()]) viewer.end();
    this.#viewers.clear();
    this.#end();
  }

  #begin(): void {
    this.#events = [];
    this.#eventsChanged = true;
    for (const source of this.#sources.sources) this.#stale.add(source);
    this.#stop = this.#sources.listen((topic, event) => {
      this.#events.push(event);
      if (this.#events.length > eventsMax) this.#events.shift();
      this.#eventsChanged = true;
      for (const source of this.#sources.sources) if (source.stale?.(topic)) this.#stale.add(source);
    });
    this.#timer = setInterval(() => void this.#tick(), this.#intervalMs);
    void this.#tick();
  }

  #end(): void {
    clearInterval(this.#timer);
    this.#stop?.();
    this.#timer = undefined;
    this.#stop = undefined;
    this.#latest.clear();
    this.#events = [];
  }

  /** One reading at a time: a slow one makes the next wait for its turn. */
  async #tick(): Promise<void> {
    if (this.#reading) return;
    this.#reading = this.#read();
    await this.#reading;
    this.#reading = undefined;
    if (this.#timer) this.#tell();
  }

  async #read(): Promise<void> {
    const due = this.#sources.sources.filter((source) => source.always || this.#stale.has(source));
    this.#stale.clear();
    await Promise.all(
      due.map(async (source) => {
        try {
          this.#latest.set(source.name, JSON.stringify(await source.read()));
        } catch (error) {
          this.#log.debug('live page cannot read', { part: source.name, error });
          this.#stale.add(source);
        }
      }),
    );
    if (!this.#eventsChanged) return;
    this.#eventsChanged = false;
    this.#latest.set('events', JSON.stringify(this.#events));
  }

  #tell(): void {
    for (const [viewer, sent] of this.#viewers) {
      if (!viewer.ready()) continue;
      for (const [name, json] of this.#latest) {
        if (sent.get(name) === json) continue;
        sent.set(name, json);
        viewer.send(name, json);
      }
    }
  }
}
