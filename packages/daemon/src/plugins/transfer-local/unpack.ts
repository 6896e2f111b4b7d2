import { invalidArgument, traced, unknown } from '@gantry/api';
import {
  type Descriptor,
  formatPlatform,
  formatPlatformAll,
  isConfigType,
  isLayerType,
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
  /** fsync the file system after each layer. */
  syncFs?: boolean;
}

export interface UnpackRequest {
  targets: readonly UnpackTarget[];
  config: Descriptor;
  layers: readonly Descriptor[];
  /** Brings a layer's blob into the store; begins it at the first call. */
  fetchLayer: (layer: Descriptor) => BlobArrival;
  tracker?: ProgressTracker | undefined;
}

/**
 * The configurations that fit what the daemon supports; the others are logged and left out, as in containerd.
 * @throws InvalidArgument if none of those asked for does
 */
export function unpackTargets(
  ctx: RequestContext,
  env: TransferEnvironment,
  unpacks: readonly { platform: Platform; snapshotter: string }[],
): UnpackTarget[] {
  const targets: UnpackTarget[] = [];
  for (const { platform, snapshotter: wanted } of unpacks) {
    const preferred = env.snapshotters.get(ctx, wanted);
    const fitting = env.unpackSupport.filter(({ matcher }) => matcher.match(platform));
    const exact = fitting.find(({ snapshotter: only }) => only === undefined || only === preferred.name);
    // Who names no snapshotter takes that of the first configuration for the platform, if the default is not among them.
    const support = exact ?? (wanted === '' ? fitting[0] : undefined);
    if (support) {
      const snapshotter = exact ? preferred : env.snapshotters.get(ctx, support.snapshotter ?? '');
      targets.push({ support, snapshotter, name: snapshotter.name });
    } else {
      env.log.warn('Unpack configuration not supported, skipping', {
        platform: formatPlatformAll(platform),
        snapshotter: wanted,
      });
    }
  }
  if (unpacks.length > 0 && targets.length === 0) {
    throw invalidArgument('unable to initialize unpacker: no unpack platforms defined: invalid argument');
  }
  return targets;
}

/** The parts of a manifest as unpacking sees them; without a configuration it is no container image. */
export function splitManifest(
  children: readonly Descriptor[],
  targets: readonly UnpackTarget[],
): { config: Descriptor | undefined; layers: Descriptor[]; others: Descriptor[] } {
  const supports = targets.map(({ support }) => support);
  const isLayer = ({ mediaType }: Descriptor): boolean =>
    isLayerType(mediaType) || supports.some(({ layerTypes }) => layerTypes?.includes(mediaType));
  const isConfig = ({ mediaType }: Descriptor): boolean =>
    isConfigType(mediaType) || supports.some(({ configType }) => configType === mediaType);
  const layers = children.filter(isLayer);
  const others = children.filter((child) => !isLayer(child));
  return { config: others.find(isConfig), layers, others };
}

/** The configuration that an image with this config is unpacked by. "layers" is all that rootfs means to OCI images. */
function targetFor(
  targets: readonly UnpackTarget[],
  { mediaType }: Descriptor,
  platform: Platform,
  rootfsType = '',
): UnpackTarget | undefined {
  const plainRootfs = rootfsType === '' || rootfsType === 'layers';
  return targets.find(({ support }) => {
    const { matcher, configType } = support;
    if (configType !== undefined && configType !== mediaType) return false;
    if (!plainRootfs && (configType === undefined || isConfigType(configType))) return false;
    return matcher.match(platform);
  });
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
  const target = targetFor(targets, config, platform, image.rootfs?.type);
  if (!target) {
    env.log.debug('unpacker does not support platform, only fetching layers', { platform: formatPlatform(platform) });
    await Promise.all(layers.map((layer) => request.fetchLayer(layer).stored));
    return;
  }
  const attributes = { 'descriptor.digest': config.digest, layers: layers.length, snapshotter: target.name };
  await traced('pkg.unpack.unpacker.unpack', { attributes }, () =>
    new ChainUnpack(ctx, env, request, target, diffIds).run(),
  );
}
