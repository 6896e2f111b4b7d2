import { now } from '@gantry/api';
import type { SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { criContext } from '../cri.ts';
import { nanosOf } from '../time.ts';

export interface DiskUsage {
  /** When it was looked at, nanoseconds since 1970. */
  timestamp: bigint;
  bytes: bigint;
  inodes: bigint;
}

/** Disk use of snapshots. Trees are walked for it, so what was found stands for a while. */
export class SnapshotDisk {
  readonly #snapshotters: SnapshotterRegistry;
  readonly #name: string;
  readonly #periodMs: number;
  readonly #known = new Map<string, { until: number; usage: Promise<DiskUsage> }>();

  /** @param periodMs for how long a number stands */
  constructor(snapshotters: SnapshotterRegistry, snapshotter: string, periodMs: number) {
    this.#snapshotters = snapshotters;
    this.#name = snapshotter;
    this.#periodMs = periodMs;
  }

  get snapshotter(): string {
    return this.#name;
  }

  #remembered(key: string, look: () => Promise<DiskUsage>): Promise<DiskUsage> {
    const clock = performance.now();
    const known = this.#known.get(key);
    if (known && known.until > clock) return known.usage;
    const usage = look();
    this.#known.set(key, { until: clock + this.#periodMs, usage });
    usage.catch(() => this.#known.delete(key));
    for (const [other, { until }] of this.#known) if (until < clock - this.#periodMs) this.#known.delete(other);
    return usage;
  }

  /** Of one snapshot. @throws NotFound */
  of(snapshotter: string, key: string): Promise<DiskUsage> {
    return this.#remembered(`${snapshotter}/${key}`, async () => {
      const ctx = criContext();
      const timestamp = nanosOf(now());
      const { size, inodes } = await this.#snapshotters.get(ctx, snapshotter).usage(ctx, key);
      return { timestamp, bytes: BigInt(size), inodes: BigInt(inodes) };
    });
  }

  /** Of all snapshots of the namespace with that snapshotter. */
  all(name = this.#name): Promise<DiskUsage> {
    return this.#remembered(name, async () => {
      const ctx = criContext();
      const timestamp = nanosOf(now());
      const snapshotter = this.#snapshotters.get(ctx, name);
      let bytes = 0n;
      let inodes = 0n;
      for await (const { name: key } of snapshotter.list(ctx)) {
        // One that is removed meanwhile takes nothing.
        const usage = await snapshotter.usage(ctx, key).catch(() => ({ size: 0, inodes: 0 }));
        bytes += BigInt(usage.size);
        inodes += BigInt(usage.inodes);
      }
      return { timestamp, bytes, inodes };
    });
  }
}
