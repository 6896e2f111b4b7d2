import { unavailable } from '@gantry/api';
import type { Logger } from '../log/logger.ts';
import type { CollectionStats, GarbageCollector } from './garbage-collector.ts';

/** containerd's settings, times in milliseconds. */
export interface SchedulerSettings {
  /** Largest share of time that collections may hold the metadata locked; at most 0.5. */
  pauseThreshold: number;
  /** Deletions that start a collection at once; 0: none do. */
  deletionThreshold: number;
  /** Mutations of any kind that start one. */
  mutationThreshold: number;
  scheduleDelayMs: number;
  startupDelayMs: number;
}

/**
 * Decides when to collect: when asked, after enough changes, and some time after a deletion, so seldom that the metadata are
 * locked for no more than `pauseThreshold` of the time.
 */
export class GcScheduler implements GarbageCollector {
  readonly #log: Logger;
  #settings: SchedulerSettings = {
    pauseThreshold: 0.02,
    deletionThreshold: 0,
    mutationThreshold: 100,
    scheduleDelayMs: 0,
    startupDelayMs: 100,
  };
  #run: (() => Promise<CollectionStats>) | undefined;
  #started = false;
  #timer: NodeJS.Timeout | undefined;
  /** When the timer goes off, by performance.now(). */
  #due = 0;
  #running: Promise<CollectionStats> | undefined;
  #next: Promise<CollectionStats> | undefined;
  #deletions = 0;
  #mutations = 0;
  #intervalMs = 1000;
  #averageLockMs = 0;
  #closed = false;
  #onCollection: ((ok: boolean, totalMs: number) => void) | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Sets what one collection is. */
  use(run: () => Promise<CollectionStats>): void {
    this.#run = run;
  }

  onCollection(listener: (ok: boolean, totalMs: number) => void): void {
    this.#onCollection = listener;
  }

  /** Begins scheduling: the first collection comes after the start-up delay. */
  start(settings: SchedulerSettings): void {
    this.#settings = { ...settings, pauseThreshold: Math.min(Math.max(settings.pauseThreshold, 0), 0.5) };
    this.#started = true;
    this.#schedule(settings.startupDelayMs);
  }

  mutated(deletion: boolean): void {
    this.#mutations++;
    if (deletion) this.#deletions++;
    // What happens before the start is seen to by the first collection.
    if (!this.#started) return;
    const { deletionThreshold, mutationThreshold, scheduleDelayMs } = this.#settings;
    const enough =
      (deletionThreshold > 0 && this.#deletions >= deletionThreshold) ||
      (mutationThreshold > 0 && this.#mutations >= mutationThreshold);
    if (enough) this.#schedule(scheduleDelayMs);
    else if (deletion) this.#schedule(this.#intervalMs);
  }

  /** Collects after that time, or when it was going to, whichever comes first. */
  #schedule(delayMs: number): void {
    const due = performance.now() + delayMs;
    if (this.#closed || (this.#timer && this.#due <= due)) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.collect().catch((error) => {
        if (this.#closed) return;
        this.#log.error('garbage collection failed', { error });
        this.#schedule(this.#intervalMs + 1000);
      });
    }, delayMs);
    this.#timer.unref();
  }

  /** A collection that begins after this call; those who ask while one runs share the next. */
  collect(): Promise<CollectionStats> {
    if (this.#closed || !this.#run) return Promise.reject(unavailable('garbage collector is not running'));
    if (!this.#running) return this.#begin();
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.#begin();
      });
    return this.#next;
  }

  #begin(): Promise<CollectionStats> {
    this.#deletions = 0;
    this.#mutations = 0;
    this.#running = this.#run!()
      .catch((error: unknown) => {
        this.#onCollection?.(false, 0);
        throw error;
      })
      .then((stats) => {
        this.#onCollection?.(true, stats.totalMs);
        this.#log.debug('garbage collected', {
          d: `${stats.totalMs.toFixed(1)}ms`,
          locked: `${stats.lockMs.toFixed(1)}ms`,
        });
        this.#averageLockMs = this.#averageLockMs === 0 ? stats.lockMs : (this.#averageLockMs + stats.lockMs) / 2;
        const { pauseThreshold } = this.#settings;
        if (pauseThreshold > 0) {
          this.#intervalMs = Math.max(1000, this.#averageLockMs / pauseThreshold - this.#averageLockMs);
        }
        return stats;
      })
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }

  /** No further collections; waits for the one that runs. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running?.catch(() => undefined);
    await this.#next?.catch(() => undefined);
  }
}
