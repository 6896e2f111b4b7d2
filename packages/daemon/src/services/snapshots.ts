import type { MessageInitShape } from '@bufbuild/protobuf';
import { invalidArgument, toTimestamp } from '@gantry/api';
import { type InfoSchema, Kind, Snapshots } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import type { Implementation } from '@gantry/rpc';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import type { SnapshotterRegistry } from '../core/snapshots/snapshot-service.ts';
import type { SnapshotInfo, SnapshotKind, SnapshotOptions } from '../core/snapshots/snapshotter.ts';
import { inBatches } from './batches.ts';
import { requestContext } from './request-context.ts';

const wireKind: Record<SnapshotKind, Kind> = { view: Kind.VIEW, active: Kind.ACTIVE, committed: Kind.COMMITTED };

/** `io.containerd.grpc.v1.snapshots`: containerd.services.snapshots.v1.Snapshots. */
export const snapshotsGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'snapshots',
  requires: [PluginTypes.Metadata],
  init(context): ServiceSet {
    const { snapshotters } = context.get(PluginTypes.Metadata);
    return { register: (grpc) => grpc.add(Snapshots, snapshotsService(snapshotters)) };
  },
});

/** The Snapshots service over all snapshotters. */
export function snapshotsService(snapshotters: SnapshotterRegistry): Implementation<typeof Snapshots> {
  return {
    async prepare(request, call) {
      const ctx = requestContext(call);
      const snapshotter = snapshotters.get(ctx, request.snapshotter);
      return { mounts: await snapshotter.prepare(ctx, request.key, request.parent, optionsOf(request)) };
    },
    async view(request, call) {
      const ctx = requestContext(call);
      const snapshotter = snapshotters.get(ctx, request.snapshotter);
      return { mounts: await snapshotter.view(ctx, request.key, request.parent, optionsOf(request)) };
    },
    async mounts(request, call) {
      const ctx = requestContext(call);
      return { mounts: await snapshotters.get(ctx, request.snapshotter).mounts(ctx, request.key) };
    },
    async commit(request, call) {
      const ctx = requestContext(call);
      await snapshotters.get(ctx, request.snapshotter).commit(ctx, request.name, request.key, {
        ...optionsOf(request),
        ...(request.parent && { parent: request.parent }),
      });
      return {};
    },
    async remove(request, call) {
      const ctx = requestContext(call);
      await snapshotters.get(ctx, request.snapshotter).remove(ctx, request.key);
      return {};
    },
    async stat(request, call) {
      const ctx = requestContext(call);
      return { info: wireInfo(await snapshotters.get(ctx, request.snapshotter).stat(ctx, request.key)) };
    },
    async update(request, call) {
      const ctx = requestContext(call);
      const { info } = request;
      if (!info?.name) throw invalidArgument('info.name must be given');
      const updated = await snapshotters
        .get(ctx, request.snapshotter)
        .update(ctx, { name: info.name, labels: { ...info.labels } }, request.updateMask?.paths ?? []);
      return { info: wireInfo(updated) };
    },
    async *list(request, call) {
      const ctx = requestContext(call);
      const found = snapshotters.get(ctx, request.snapshotter).list(ctx, request.filters);
      for await (const batch of inBatches(found, 100)) yield { info: batch.map(wireInfo) };
    },
    async usage(request, call) {
      const ctx = requestContext(call);
      const usage = await snapshotters.get(ctx, request.snapshotter).usage(ctx, request.key);
      return { size: BigInt(usage.size), inodes: BigInt(usage.inodes) };
    },
    async cleanup(request, call) {
      const ctx = requestContext(call);
      await snapshotters.get(ctx, request.snapshotter).cleanup(ctx);
      return {};
    },
  };
}

function optionsOf(request: { labels: Record<string, string> }): SnapshotOptions {
  return { labels: { ...request.labels } };
}

function wireInfo(info: SnapshotInfo): MessageInitShape<typeof InfoSchema> {
  return {
    name: info.name,
    parent: info.parent,
    kind: wireKind[info.kind],
    createdAt: toTimestamp(info.createdAt),
    updatedAt: toTimestamp(info.updatedAt),
    labels: info.labels,
  };
}
