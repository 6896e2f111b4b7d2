import type { Metrics as MetricsV1 } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import type { Metrics as MetricsV2 } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';

/** What a cgroup has read from and written to a block device. */
export interface DiskIo {
  /** Its name, or its numbers where that is not known. */
  device: string;
  major: bigint;
  minor: bigint;
  readBytes: bigint;
  writeBytes: bigint;
  reads: bigint;
  writes: bigint;
}

export function diskIoOfV1({ blkio }: MetricsV1): DiskIo[] {
  const devices = new Map<string, DiskIo>();
  const add = (entries: NonNullable<typeof blkio>['ioServiceBytesRecursive'], kind: 'bytes' | 'operations'): void => {
    for (const { device, major, minor, op, value } of entries) {
      const key = `${major}:${minor}`;
      let io = devices.get(key);
      if (!io) {
        io = { device: device || key, major, minor, readBytes: 0n, writeBytes: 0n, reads: 0n, writes: 0n };
        devices.set(key, io);
      }
      const way = op.toLowerCase();
      if (way === 'read') io[kind === 'bytes' ? 'readBytes' : 'reads'] += value;
      if (way === 'write') io[kind === 'bytes' ? 'writeBytes' : 'writes'] += value;
    }
  };
  add(blkio?.ioServiceBytesRecursive ?? [], 'bytes');
  add(blkio?.ioServicedRecursive ?? [], 'operations');
  return [...devices.values()];
}

export function diskIoOfV2({ io }: MetricsV2): DiskIo[] {
  return (io?.usage ?? []).map(({ major, minor, rbytes, wbytes, rios, wios }) => ({
    device: `${major}:${minor}`,
    major,
    minor,
    readBytes: rbytes,
    writeBytes: wbytes,
    reads: rios,
    writes: wios,
  }));
}
