import { Code, hasCode, StatusError, traced, unknown } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import { chainIds, type Descriptor } from '@gantry/oci';
import type { ApplyOptions, GrowingBlob } from '../../core/diff/differ.ts';
import { nodeKeyPayloads } from '../../core/diff/node-keys.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { NamespacedSnapshotter } from '../../core/snapshots/snapshot-service.ts';
import type { SnapshotLayer } from '../../core/snapshots/snapshotter.ts';
import { applyWith } from './apply-with.ts';
import { randomPart, type TransferEnvironment } from './environment.ts';
import { TaskGroup } from './task-group.ts';
import type { UnpackRequest, UnpackTarget } from './unpack.ts';

/**
 * Unpacks one chain of layers. Each layer is read while it still arrives. Where the snapshotter can put a snapshot on a
 * parent afterwards (`rebase`), all layers are unpacked side by side, each into an upper directory of its own, and only
 * committed in order; elsewhere each waits for the one below.
 */

interface LayerWork {
  index: number;
  layer: Descriptor;
  chainId: string;
  /** The chain id below, '' for none. */
  parent: string;
  diffId: string;
  /** Lets the chain's lock go; safe to call twice. */
  release: () => void;
}

interface Prepared {
  key: string;
  mounts: Mount[];
  labels: Record<string, string>;
}

export class ChainUnpack {
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #request: UnpackRequest;
  readonly #target: UnpackTarget;
  readonly #diffIds: readonly string[];
  readonly #chainIds: readonly string[];
  readonly #group: TaskGroup;
  /** Keys of snapshots that are neither committed nor removed. */
  readonly #active = new Set<string>();
  readonly #labelling: Promise<unknown>[] = [];
  #fetching = false;

  constructor(
    ctx: RequestContext,
    env: TransferEnvironment,
    request: UnpackRequest,
    target: UnpackTarget,
    diffIds: readonly string[],
  ) {
    this.#group = new TaskGroup(ctx.signal);
    this.#ctx = { ...ctx, signal: this.#group.signal };
    this.#env = env;
    this.#request = request;
    this.#target = target;
    this.#diffIds = diffIds;
    this.#chainIds = chainIds(diffIds);
  }

  async run(): Promise<void> {
    const { name } = this.#target;
    const works = await this.#missing();
    try {
      const ahead = this.#canRebase() ? this.#startAll(works) : [];
      for (const [position, work] of works.entries()) {
        const prepared = (await ahead[position]) ?? (await this.#inTurn(work, works.slice(position)));
        if (prepared) await this.#commit(work, prepared);
        work.release();
      }
      await this.#group.wait();
      await Promise.all(this.#labelling);
    } catch (error) {
      // A first failure elsewhere, in a download for instance, shows here as the abort that it caused.
      this.#group.fail(error);
      const reason = await this.#group.wait().catch((first: unknown) => first);
      await Promise.allSettled(this.#labelling);
      await Promise.all([...this.#active].map((key) => this.#discard(key)));
      throw reason;
    } finally {
      for (const { release } of works) release();
    }
    // Also for snapshots that another transfer has made and not flushed yet.
    await this.#target.snapshotter.flush();
    const label = `containerd.io/gc.ref.snapshot.${name}`;
    const labels = { [label]: this.#chainIds.at(-1) ?? '' };
    await this.#env.content.update(this.#ctx, { digest: this.#request.config.digest, labels }, [`labels.${label}`]);
  }

  #canRebase(): boolean {
    const { name, support } = this.#target;
    if (!this.#env.parallelUnpack || support.differs[0]?.bottomUp) return false;
    return this.#env.snapshotterMeta(name).capabilities.includes('rebase');
  }

  /** The layers without a snapshot. Their chains are locked from the bottom up, so that two pulls cannot wait crosswise. */
  async #missing(): Promise<LayerWork[]> {
    const { namespace, signal } = this.#ctx;
    const works: LayerWork[] = [];
    try {
      for (const [index, layer] of this.#request.layers.entries()) {
        signal?.throwIfAborted();
        const chainId = this.#chainIds[index] ?? '';
        if (await exists(this.#ctx, this.#target.snapshotter, chainId)) continue;
        const release = once(await this.#env.chains.acquire(`${namespace}/${this.#target.name}/${chainId}`, signal));
        const parent = this.#chainIds[index - 1] ?? '';
        works.push({ index, layer, chainId, parent, diffId: this.#diffIds[index] ?? '', release });
        // Another pull may have made it while this one waited.
        if (await exists(this.#ctx, this.#target.snapshotter, chainId)) works.pop()?.release();
      }
      return works;
    } catch (error) {
      for (const { release } of works) release();
      throw error;
    }
  }

  /** Begins every download, and every unpacking without its parent. A layer that has to be done in its turn gives undefined. */
  #startAll(works: readonly LayerWork[]): Promise<Prepared | undefined>[] {
    this.#fetchAll(works);
    return works.map((work) => {
      const unpacking = this.#ahead(work);
      this.#group.run(async () => void (await unpacking));
      return unpacking;
    });
  }

  async #ahead(work: LayerWork): Promise<Prepared | undefined> {
    const bottom = work.parent === '';
    const prepared = await this.#prepare(work, '');
    if (!prepared) return undefined;
    try {
      const mounts = bottom ? prepared.mounts : asUpperDirectories(prepared.mounts);
      await this.#unpack(work, mounts, { standalone: !bottom }, true);
      this.#target.snapshotter.measure?.(this.#ctx, prepared.key);
      return prepared;
    } catch (error) {
      this.#ctx.signal?.throwIfAborted();
      await this.#discard(prepared.key);
      this.#env.log.debug('layer is unpacked again in its turn', { digest: work.layer.digest, error });
      return undefined;
    }
  }

  /** With everything below in place; `rest`: this layer and those above. undefined if a snapshot has come from elsewhere. */
  async #inTurn(work: LayerWork, rest: readonly LayerWork[]): Promise<Prepared | undefined> {
    const firstTry = !this.#fetching;
    let prepared = await this.#prepare(work, work.parent);
    if (!prepared) return undefined;
    // Only now: a snapshotter that pulls lazily has said above that it needs no blob.
    this.#fetchAll(rest);
    try {
      await this.#unpack(work, prepared.mounts, {}, firstTry || !this.#canRebase());
      return prepared;
    } catch (error) {
      this.#ctx.signal?.throwIfAborted();
      const { stored, growing } = this.#request.fetchLayer(work.layer);
      await stored;
      if (!(await growing)) throw error;
    }
    // Bytes read while they came may be an earlier attempt's bad ones; the stored blob has been verified.
    await this.#discard(prepared.key);
    prepared = await this.#prepare(work, work.parent);
    if (prepared) await this.#unpack(work, prepared.mounts, {}, false);
    return prepared;
  }

  #fetchAll(works: readonly LayerWork[]): void {
    if (this.#fetching) return;
    this.#fetching = true;
    for (const { layer } of works) {
      const { stored } = this.#request.fetchLayer(layer);
      this.#group.run(() => stored);
    }
  }

  /** undefined: the snapshot is there already. */
  async #prepare(work: LayerWork, parent: string): Promise<Prepared | undefined> {
    const { snapshotter } = this.#target;
    const { chainId, layer } = work;
    const labels: Record<string, string> = {
      ...inheritedLabels(layer),
      'containerd.io/snapshot.ref': chainId,
      'containerd.io/snapshot/diff-id': work.diffId,
      ...(work.parent !== '' && { 'containerd.io/snapshot/parent-chain-id': work.parent }),
    };
    for (let attempt = 0; attempt < 3; attempt++) {
      this.#ctx.signal?.throwIfAborted();
      const key = `extract-${process.hrtime.bigint() % 1_000_000_000n}-${randomPart()} ${chainId}`;
      this.#active.add(key);
      try {
        return { key, mounts: await snapshotter.prepare(this.#ctx, key, parent, { labels }), labels };
      } catch (error) {
        this.#active.delete(key);
        if (!hasCode(error, Code.AlreadyExists)) {
          throw StatusError.wrap(error, `failed to prepare extraction snapshot "${key}"`);
        }
        if (await exists(this.#ctx, snapshotter, chainId)) return undefined;
      }
    }
    throw unknown(`unable to prepare extraction snapshot for ${chainId}`);
  }

  /** `along`: reads the blob while it comes, if it is not there. */
  #unpack(work: LayerWork, mounts: Mount[], options: ApplyOptions, along: boolean): Promise<void> {
    const { digest, mediaType, size } = work.layer;
    const attributes = { 'layer.media.type': mediaType, 'layer.media.size': size, 'layer.media.digest': digest };
    return traced('pkg.unpack.unpacker.unpackLayer', { attributes }, () =>
      this.#unpackOnce(work, mounts, options, along),
    );
  }

  async #unpackOnce(work: LayerWork, mounts: Mount[], options: ApplyOptions, along: boolean): Promise<void> {
    const { tracker } = this.#request;
    const { layer, diffId } = work;
    const { stored, growing } = this.#request.fetchLayer(layer);
    const blob = along ? await growing : undefined;
    if (!blob) await stored;
    const unpacked = await this.#env.unpacks.run(async () => {
      tracker?.extracting(layer, 0);
      const onProgress = (read: number): void => tracker?.extracting(layer, read);
      return await this.#apply(layer, mounts, { ...options, ...(tracker && { onProgress }) }, blob);
    }, this.#ctx.signal);
    await stored;
    if (unpacked.digest !== diffId) {
      throw unknown(`wrong diff id "${unpacked.digest}" calculated on extraction "${diffId}", desc "${layer.digest}"`);
    }
    tracker?.extracted(layer);
  }

  async #apply(
    layer: Descriptor,
    mounts: Mount[],
    options: ApplyOptions,
    blob: GrowingBlob | undefined,
  ): Promise<Descriptor> {
    try {
      const { syncFs } = this.#target;
      const all = { ...options, ...(syncFs && { syncFs }), processorPayloads: nodeKeyPayloads(layer) };
      return await applyWith(this.#target.support.differs, this.#ctx, layer, mounts, all, blob);
    } catch (error) {
      throw StatusError.wrap(
        error,
        `failed to extract layer (${layer.mediaType} ${layer.digest}) to ${this.#target.name}`,
      );
    }
  }

  async #commit(work: LayerWork, prepared: Prepared): Promise<void> {
    const { snapshotter } = this.#target;
    const { parent, chainId, layer, diffId } = work;
    const { key, labels } = prepared;
    try {
      await snapshotter.commit(this.#ctx, chainId, key, {
        labels,
        // Says where it belongs in both cases: on the parent it was prepared on, or on its new one.
        ...(this.#canRebase() && parent && { parent }),
        // A layer that takes somebody's key could not be unpacked again.
        ...(Object.keys(nodeKeyPayloads(layer)).length === 0 && { layer: plain(layer) }),
      });
      this.#active.delete(key);
    } catch (error) {
      if (!hasCode(error, Code.AlreadyExists)) throw StatusError.wrap(error, `failed to commit snapshot ${key}`);
      await this.#discard(key);
    }
    const labelling = this.#env.content.update(
      this.#ctx,
      { digest: layer.digest, labels: { 'containerd.io/uncompressed': diffId } },
      ['labels.containerd.io/uncompressed'],
    );
    labelling.catch(() => undefined);
    this.#labelling.push(labelling);
  }

  async #discard(key: string): Promise<void> {
    try {
      await this.#target.snapshotter.remove({ ...this.#ctx, signal: undefined }, key);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) this.#env.log.error('failed to cleanup', { key, error });
    }
    this.#active.delete(key);
  }
}

function once(fn: () => void): () => void {
  let called = false;
  return () => {
    if (!called) fn();
    called = true;
  };
}

function plain({ mediaType, digest, size }: Descriptor): SnapshotLayer {
  return { mediaType, digest, size };
}

/** What is there is the transfer's from now on: nobody else may refer to it, and a collection may be under way. */
async function exists(ctx: RequestContext, snapshotter: NamespacedSnapshotter, name: string): Promise<boolean> {
  if (snapshotter.hold) return await snapshotter.hold(ctx, name);
  try {
    await snapshotter.stat(ctx, name);
    return true;
  } catch (error) {
    if (hasCode(error, Code.NotFound)) return false;
    throw error;
  }
}

/**
 * An overlay snapshot without a parent is given as a bind mount of its directory, into which whiteouts would be carried
 * out; as the upper directory of an overlay it keeps them, for the layers that it will lie on.
 */
function asUpperDirectories(mounts: readonly Mount[]): Mount[] {
  return mounts.map((mount) =>
    mount.type === 'bind'
      ? { ...mount, type: 'overlay', source: 'overlay', options: [`upperdir=${mount.source}`] }
      : mount,
  );
}

/** A layer's annotations for snapshotters become labels. */
export function inheritedLabels(layer: Descriptor): Record<string, string> {
  const entries = Object.entries(layer.annotations ?? {});
  return Object.fromEntries(
    entries.filter(([key]) => key === 'containerd.io/snapshot.ref' || key.startsWith('containerd.io/snapshot/')),
  );
}
