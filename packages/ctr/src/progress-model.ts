// What is known of a transfer under way: each thing that moves, how much of it, how fast, and how long it still takes.
import type { TransferProgress } from '@gantry/client';

/** One thing of a transfer: an image, a manifest, a layer. */
export interface ProgressItem {
  readonly name: string;
  event: string;
  /** Bytes of the current step that are done. */
  progress: number;
  /** Bytes in all; 0 if not known. */
  total: number;
  /** What lies above it; '' for none. */
  parent: string;
  /** It was there before: nothing of it goes over the wire. */
  present: boolean;
  /** Bytes that went over the wire. */
  moved: number;
  /** When (milliseconds) how many bytes of the step were done, over the last seconds. */
  samples: [number, number][];
}

/** Rates are measured over this time, in milliseconds. */
const span = 4000;
/** A step without a byte for this long stands still. */
const stall = 5000;

const ended = new Set(['complete', 'done', 'extracted', 'already exists', 'exists', 'saved', 'converted', 'uploaded']);
const present = new Set(['already exists', 'exists']);

/** Whether nothing more is to come in this step. */
export const isEnded = (item: Pick<ProgressItem, 'event'>): boolean => ended.has(item.event);

/** Takes in the daemon's reports. Times are milliseconds of any clock that does not jump. */
export class ProgressModel {
  /** In the order they were first heard of. */
  readonly items = new Map<string, ProgressItem>();
  /** What the daemon said last of the whole. */
  status = '';
  readonly startedAt: number;
  readonly #whole: [number, number][] = [];

  constructor(now: number) {
    this.startedAt = now;
  }

  /** @returns whether anything that a reader of lines would notice has changed; `item` is undefined for the whole */
  take(report: TransferProgress, now: number): { item: ProgressItem | undefined; changed: boolean } {
    const { event, name, parents, progress, total } = report;
    if (name === '' || (!report.descriptor && parents.length === 0 && total === 0 && !this.items.has(name))) {
      const status = name ? `${name}: ${event}` : event;
      const changed = status !== this.status;
      this.status = status;
      return { item: undefined, changed };
    }
    let item = this.items.get(name);
    const changed = item?.event !== event;
    if (!item) {
      item = { name, event, progress: 0, total: 0, parent: '', present: false, moved: 0, samples: [] };
      this.items.set(name, item);
    }
    // A parent may be heard of after its child.
    item.parent = parents.find((parent) => parent !== name && this.items.has(parent)) ?? item.parent;
    // Each step counts from the start.
    if (changed || progress < item.progress) item.samples = [];
    Object.assign(item, { event, progress, total: total || item.total });
    item.present ||= present.has(event);
    // What is unpacked while it comes has come.
    if (!item.present) item.moved = Math.max(item.moved, progress);
    sample(item.samples, now, progress);
    sample(this.#whole, now, this.moved);
    return { item, changed };
  }

  /** The things below one, '' for the topmost. */
  below(parent: string): ProgressItem[] {
    return [...this.items.values()].filter((item) => item.parent === parent);
  }

  /** Bytes that went over the wire. */
  get moved(): number {
    let sum = 0;
    for (const { moved } of this.items.values()) sum += moved;
    return sum;
  }

  /** Bytes a second of one thing, or of all; 0 while too little is known. */
  rate(now: number, item?: ProgressItem): number {
    return rateOf(item?.samples ?? this.#whole, now);
  }

  /** Milliseconds without a byte for a thing that is under way; 0 if it moves. */
  stalled(now: number, item: ProgressItem): number {
    const last = item.samples.at(-1);
    if (!last || isEnded(item) || item.progress === 0 || item.progress >= item.total) return 0;
    return now - last[0] >= stall ? now - last[0] : 0;
  }

  /** Seconds that one thing's step, or all that moves, still takes; undefined if that cannot be told. */
  secondsLeft(now: number, item?: ProgressItem): number | undefined {
    const rate = this.rate(now, item);
    let bytes = 0;
    for (const one of item ? [item] : this.items.values())
      if (!isEnded(one) && (item || !one.present))
        bytes += Math.max(0, one.total - Math.max(one.progress, item ? 0 : one.moved));
    if (bytes === 0 || rate <= 0) return undefined;
    return bytes / rate;
  }
}

/** Notes a value when it has grown, and forgets what is too old to say how fast things are now. */
function sample(samples: [number, number][], now: number, value: number): void {
  const last = samples.at(-1);
  if (last && value <= last[1]) return;
  // Many reports come within a picture's time; one point in fifty milliseconds is enough.
  if (last && samples.length > 1 && now - last[0] < 50) last[1] = value;
  else samples.push([now, value]);
  while (samples.length > 2 && now - samples[1]![0] > span) samples.shift();
}

function rateOf(samples: readonly [number, number][], now: number): number {
  const first = samples.find(([at]) => now - at <= span) ?? samples.at(-1);
  const last = samples.at(-1);
  if (!first || !last || last[1] <= first[1]) return 0;
  return ((last[1] - first[1]) * 1000) / Math.max(now - first[0], 100);
}
