import { unknown } from '@gantry/api';
import {
  type Descriptor,
  formatPlatform,
  normalizePlatform,
  type Platform,
  parseImageConfig,
  platformFromJson,
} from '@gantry/oci';
import type { RequestContext } from '../../core/request-context.ts';
import type { NamespacedSnapshotter } from '../../core/snapshots/snapshot-service.ts';
import { ChainUnpack } from './chain-unpack.ts';
import { readContent } from './content-access.ts';
import type { TransferEnvironment, UnpackSupport } from './environment.ts';
import type { BlobArrival } from './growing-file.ts';
import type { ProgressTracker } from './progress-tracker.ts';

/** Turns an image's layers into a chain of committed snapshots, each unpacked as soon as its blob is there. */

/** An unpack configuration that can be served. */
export interface UnpackTarget {
  support: UnpackSupport;
  snapshotter: NamespacedSnapshotter;
  name: string;
}

export interface UnpackRequest {
  targets: readonly UnpackTarget[];
  config: Descriptor;
  layers: readonly Descriptor[];
  /** Brings a layer's blob into the store; begins it at the first call. */
  fetchLayer: (layer: Descriptor) => BlobArrival;
  tracker?: ProgressTracker | undefined;
}

/** The configurations that fit what the daemon supports; the others are logged and left out, as in containerd. */
export function unpackTargets(
  ctx: RequestContext,
  env: TransferEnvironment,
  unpacks: readonly { platform: Platform; snapshotter: string }[],
): UnpackTarget[] {
  const targets: UnpackTarget[] = [];
  for (const { platform, snapshotter: wanted } of unpacks) {
    const snapshotter = env.snapshotters.get(ctx, wanted);
    const support = env.unpackSupport.find(
      ({ matcher, snapshotter: only }) => matcher.match(platform) && (only === undefined || only === snapshotter.name),
    );
    if (support) targets.push({ support, snapshotter, name: snapshotter.name });
    else {
      env.log.warn('Unpack configuration not supported, skipping', {
        platform: formatPlatform(platform),
        snapshotter: snapshotter.name,
      });
    }
  }
  return targets;
}

export async function unpackImage(
  ctx: RequestContext,
  env: TransferEnvironment,
  request: UnpackRequest,
): Promise<void> {
  const { config, layers, targets } = request;
  const image = parseImageConfig(await readContent(ctx, env.content, config.digest));
  const diffIds = image.rootfs?.diff_ids ?? [];
  if (layers.length !== diffIds.length) {
    throw unknown(`number of layers and diffIDs don't match: ${layers.length} != ${diffIds.length}`);
  }
  const platform = normalizePlatform(platformFromJson(image));
  const plainRootfs = !image.rootfs?.type || image.rootfs.type === 'layers';
  const target = plainRootfs ? targets.find(({ support }) => support.matcher.match(platform)) : undefined;
  if (!target) {
    env.log.debug('unpacker does not support platform, only fetching layers', { platform: formatPlatform(platform) });
    await Promise.all(layers.map((layer) => request.fetchLayer(layer).stored));
    return;
  }
  await new ChainUnpack(ctx, env, request, target, diffIds).run();
}
