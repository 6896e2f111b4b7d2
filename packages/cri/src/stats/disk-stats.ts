import { create } from '@bufbuild/protobuf';
import { now } from '@gantry/api';
import { type FilesystemUsage, FilesystemUsageSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { criContext } from '../cri.ts';
import { nanosOf } from '../time.ts';
import type { StatsCollector } from './stats-collector.ts';

/** Disk use only; nothing is known of containers yet. */
export class DiskStats implements StatsCollector {
  readonly #snapshotters: SnapshotterRegistry;
  readonly #snapshotter: string;
  readonly #directory: string;

  /** @param directory of the snapshotter */
  constructor(snapshotters: SnapshotterRegistry, snapshotter: string, directory: string) {
    this.#snapshotters = snapshotters;
    this.#snapshotter = snapshotter;
    this.#directory = directory;
  }

  async containerStats(): Promise<undefined> {
    return undefined;
  }

  async podStats(): Promise<undefined> {
    return undefined;
  }

  async imageFilesystems(): Promise<FilesystemUsage[]> {
    const ctx = criContext();
    const snapshotter = this.#snapshotters.get(ctx, this.#snapshotter);
    let bytes = 0;
    let inodes = 0;
    for await (const { name } of snapshotter.list(ctx)) {
      const usage = await snapshotter.usage(ctx, name).catch(() => ({ size: 0, inodes: 0 }));
      bytes += usage.size;
      inodes += usage.inodes;
    }
    return [
      create(FilesystemUsageSchema, {
        timestamp: nanosOf(now()),
        fsId: { mountpoint: this.#directory },
        usedBytes: { value: BigInt(bytes) },
        inodesUsed: { value: BigInt(inodes) },
      }),
    ];
  }

  metricDescriptors(): never[] {
    return [];
  }

  async podMetrics(): Promise<undefined> {
    return undefined;
  }

  async close(): Promise<void> {}
}
