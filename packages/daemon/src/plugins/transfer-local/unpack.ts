import { Code, hasCode, StatusError, unimplemented, unknown } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import {
  chainIds,
  type Descriptor,
  formatPlatform,
  normalizePlatform,
  type Platform,
  parseImageConfig,
  platformFromJson,
} from '@gantry/oci';
import type { Differ } from '../../core/diff/differ.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { NamespacedSnapshotter } from '../../core/snapshots/snapshot-service.ts';
import { readContent } from './content-access.ts';
import { randomPart, type TransferEnvironment, type UnpackSupport } from './environment.ts';
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
  /** Brings a layer's blob into the store; called once for each layer that is needed. */
  fetchLayer: (layer: Descriptor) => Promise<void>;
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
    await Promise.all(layers.map((layer) => request.fetchLayer(layer)));
    return;
  }
  const chain = new ChainUnpack(ctx, env, request, target, diffIds);
  await chain.run();
}

class ChainUnpack {
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #request: UnpackRequest;
  readonly #target: UnpackTarget;
  readonly #diffIds: readonly string[];
  readonly #chainIds: readonly string[];
  /** Begun at the first layer that has no snapshot; those below it are not fetched. */
  #fetches: Promise<void>[] | undefined;
  #firstFetch = 0;

  constructor(
    ctx: RequestContext,
    env: TransferEnvironment,
    request: UnpackRequest,
    target: UnpackTarget,
    diffIds: readonly string[],
  ) {
    this.#ctx = ctx;
    this.#env = env;
    this.#request = request;
    this.#target = target;
    this.#diffIds = diffIds;
    this.#chainIds = chainIds(diffIds);
  }

  async run(): Promise<void> {
    const { content, chains } = this.#env;
    const { layers, config } = this.#request;
    const { name } = this.#target;
    try {
      for (const [index, layer] of layers.entries()) {
        await chains.run(`${this.#ctx.namespace}/${name}/${this.#chainIds[index]}`, () => this.#layer(index, layer));
      }
    } finally {
      // A failure must not leave downloads behind; their own failure was or will be reported.
      await Promise.allSettled(this.#fetches ?? []);
    }
    const label = `containerd.io/gc.ref.snapshot.${name}`;
    const top = this.#chainIds.at(-1) ?? '';
    await content.update(this.#ctx, { digest: config.digest, labels: { [label]: top } }, [`labels.${label}`]);
  }

  async #layer(index: number, layer: Descriptor): Promise<void> {
    this.#ctx.signal?.throwIfAborted();
    const { tracker } = this.#request;
    const { snapshotter, name } = this.#target;
    const chainId = this.#chainIds[index] ?? '';
    const prepared = await this.#prepare(index, layer);
    if (!prepared) return;
    const { key, mounts, labels } = prepared;
    try {
      await this.#fetched(index);
      await this.#env.unpacks.run(async () => {
        tracker?.extracting(layer);
        const unpacked = await this.#apply(layer, mounts, `${name} as "${key}"`);
        if (unpacked.digest !== this.#diffIds[index]) {
          throw unknown(
            `wrong diff id "${unpacked.digest}" calculated on extraction "${this.#diffIds[index]}", desc "${layer.digest}"`,
          );
        }
      }, this.#ctx.signal);
      await snapshotter.commit(this.#ctx, chainId, key, { labels });
      tracker?.extracted(layer);
    } catch (error) {
      await this.#discard(key);
      if (!hasCode(error, Code.AlreadyExists)) throw error;
    }
    await this.#env.content.update(
      this.#ctx,
      { digest: layer.digest, labels: { 'containerd.io/uncompressed': this.#diffIds[index] ?? '' } },
      ['labels.containerd.io/uncompressed'],
    );
  }

  /** undefined: the snapshot is there already, or a lazy-pulling snapshotter needs no blob for it. */
  async #prepare(
    index: number,
    layer: Descriptor,
  ): Promise<{ key: string; mounts: Mount[]; labels: Record<string, string> } | undefined> {
    const { snapshotter } = this.#target;
    const chainId = this.#chainIds[index] ?? '';
    const parent = index > 0 ? (this.#chainIds[index - 1] ?? '') : '';
    const labels: Record<string, string> = {
      ...inheritedLabels(layer),
      'containerd.io/snapshot.ref': chainId,
      'containerd.io/snapshot/diff-id': this.#diffIds[index] ?? '',
      ...(index > 0 && { 'containerd.io/snapshot/parent-chain-id': parent }),
    };
    for (let attempt = 0; attempt < 3; attempt++) {
      if (await exists(this.#ctx, snapshotter, chainId)) return undefined;
      const key = `extract-${process.hrtime.bigint() % 1_000_000_000n}-${randomPart()} ${chainId}`;
      try {
        return { key, mounts: await snapshotter.prepare(this.#ctx, key, parent, { labels }), labels };
      } catch (error) {
        if (!hasCode(error, Code.AlreadyExists)) {
          throw StatusError.wrap(error, `failed to prepare extraction snapshot "${key}"`);
        }
      }
    }
    throw unknown(`unable to prepare extraction snapshot for ${chainId}`);
  }

  /** Waits for a layer's blob, having started this fetch and those of all layers above. */
  async #fetched(index: number): Promise<void> {
    if (!this.#fetches) {
      this.#firstFetch = index;
      this.#fetches = this.#request.layers.slice(index).map((layer) => this.#request.fetchLayer(layer));
      for (const fetch of this.#fetches) fetch.catch(() => undefined);
    }
    await this.#fetches[index - this.#firstFetch];
  }

  async #apply(layer: Descriptor, mounts: Mount[], where: string): Promise<Descriptor> {
    try {
      return await applyWith(this.#target.support.differs, this.#ctx, layer, mounts);
    } catch (error) {
      throw StatusError.wrap(error, `failed to extract layer (${layer.mediaType} ${layer.digest}) to ${where}`);
    }
  }

  async #discard(key: string): Promise<void> {
    try {
      await this.#target.snapshotter.remove({ ...this.#ctx, signal: undefined }, key);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) this.#env.log.error('failed to cleanup', { key, error });
    }
  }
}

/** The first differ that knows the layer's type. */
export async function applyWith(
  differs: readonly Differ[],
  ctx: RequestContext,
  layer: Descriptor,
  mounts: Mount[],
): Promise<Descriptor> {
  let last: unknown = unimplemented('no differ is loaded');
  for (const differ of differs) {
    try {
      return await differ.apply(ctx, layer, mounts);
    } catch (error) {
      if (!hasCode(error, Code.Unimplemented)) throw error;
      last = error;
    }
  }
  throw last;
}

async function exists(ctx: RequestContext, snapshotter: NamespacedSnapshotter, name: string): Promise<boolean> {
  try {
    await snapshotter.stat(ctx, name);
    return true;
  } catch (error) {
    if (hasCode(error, Code.NotFound)) return false;
    throw error;
  }
}

/** A layer's annotations for snapshotters become labels. */
function inheritedLabels(layer: Descriptor): Record<string, string> {
  const entries = Object.entries(layer.annotations ?? {});
  return Object.fromEntries(
    entries.filter(([key]) => key === 'containerd.io/snapshot.ref' || key.startsWith('containerd.io/snapshot/')),
  );
}
