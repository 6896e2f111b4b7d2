import { alreadyExists, Code, hasCode, invalidArgument, StatusError, unknown } from '@gantry/api';
import { chainIds, type Descriptor, digestOf, isDigest } from '@gantry/oci';
import type { Differ } from '../../core/diff/differ.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { NamespacedSnapshotter } from '../../core/snapshots/snapshot-service.ts';
import type { TransferOptions } from '../../core/transfer/transferrer.ts';
import { applyWith } from './apply-with.ts';
import { describe } from './endpoints.ts';
import { randomPart, type TransferEnvironment, withLease } from './environment.ts';
import type { LayerStreamEndpoint, SnapshotEndpoint } from './layer-endpoints.ts';
import { ProgressTracker } from './progress-tracker.ts';
import { receiveLayer } from './receive-layer.ts';

/** Unpack: a layer from a stream onto a snapshot, committed under a name or its chain id. */
export async function unpackLayer(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: LayerStreamEndpoint,
  target: SnapshotEndpoint,
  options: TransferOptions,
): Promise<void> {
  const report = options.progress ?? (() => undefined);
  try {
    await withLease(ctx, env.leases, async (leased) => {
      report({ event: `Unpacking to ${describe(target)}` });
      using tracker = new ProgressTracker(describe(target), 'receiving', options);
      const { name, layer } = await new LayerUnpack(leased, env, source, target, tracker).run();
      report({ event: 'unpacked', name, ...(layer && { descriptor: layer }) });
      report({ event: `Completed unpack to ${describe(target)}` });
    });
  } finally {
    source.close();
  }
}

class LayerUnpack {
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #source: LayerStreamEndpoint;
  readonly #target: SnapshotEndpoint;
  readonly #tracker: ProgressTracker;
  readonly #snapshotter: NamespacedSnapshotter;

  constructor(
    ctx: RequestContext,
    env: TransferEnvironment,
    source: LayerStreamEndpoint,
    target: SnapshotEndpoint,
    tracker: ProgressTracker,
  ) {
    this.#ctx = ctx;
    this.#env = env;
    this.#source = source;
    this.#target = target;
    this.#tracker = tracker;
    this.#snapshotter = env.snapshotters.get(ctx, target.snapshotter);
  }

  /** Answers the snapshot's name, and the layer if it had to be read for it. */
  async run(): Promise<{ name: string; layer?: Descriptor }> {
    const { key, parent, diffId } = this.#target;
    if (key === '' && parent !== '' && !isDigest(parent)) {
      throw invalidArgument(
        `the chain id of a layer on "${parent}", which is no chain id, is not known: a key is needed`,
      );
    }
    if (parent !== '') await this.#snapshotter.stat(this.#ctx, parent);
    const name = key !== '' ? key : diffId === '' ? undefined : chainId(parent, diffId);
    if (name === undefined) return await this.#unpack(undefined);
    const { namespace, signal } = this.#ctx;
    const release = await this.#env.chains.acquire(`${namespace}/${this.#snapshotter.name}/${name}`, signal);
    try {
      if (!(await this.#exists(name))) return await this.#unpack(name);
      if (key !== '') throw alreadyExists(`snapshot ${key}: already exists`);
      return { name };
    } finally {
      release();
    }
  }

  async #unpack(known: string | undefined): Promise<{ name: string; layer?: Descriptor }> {
    const labels = {
      ...this.#target.labels,
      ...(known !== undefined && { 'containerd.io/snapshot.ref': known }),
    };
    const active = `extract-${process.hrtime.bigint() % 1_000_000_000n}-${randomPart()} ${known ?? 'layer-stream'}`;
    let mounts: Awaited<ReturnType<NamespacedSnapshotter['prepare']>>;
    try {
      mounts = await this.#snapshotter.prepare(this.#ctx, active, this.#target.parent, { labels });
    } catch (error) {
      // A snapshotter that has the layer by itself says so.
      if (hasCode(error, Code.AlreadyExists) && known && (await this.#exists(known))) return { name: known };
      throw StatusError.wrap(error, `failed to prepare extraction snapshot "${active}"`);
    }
    try {
      const layer = await this.#receive();
      const unpacked = await this.#env.unpacks.run(async () => {
        const onProgress = (read: number): void => this.#tracker.extracting(layer, read);
        onProgress(0);
        return await applyWith(this.#differs(), this.#ctx, layer, mounts, { onProgress });
      }, this.#ctx.signal);
      const { diffId, key, parent } = this.#target;
      if (diffId !== '' && unpacked.digest !== diffId) {
        throw unknown(
          `wrong diff id "${unpacked.digest}" calculated on extraction "${diffId}", desc "${layer.digest}"`,
        );
      }
      this.#tracker.extracted(layer);
      const name = key !== '' ? key : chainId(parent, unpacked.digest);
      await this.#commit(name, active, { ...labels, 'containerd.io/snapshot/diff-id': unpacked.digest });
      const label = 'containerd.io/uncompressed';
      const uncompressed = { [label]: unpacked.digest };
      await this.#env.content.update(this.#ctx, { digest: layer.digest, labels: uncompressed }, [`labels.${label}`]);
      return { name, layer: { ...layer, annotations: uncompressed } };
    } catch (error) {
      await this.#discard(active);
      throw error;
    }
  }

  async #receive(): Promise<Descriptor> {
    const { digest, mediaType, size } = this.#source;
    const announced = digest === '' ? undefined : { digest, mediaType, size };
    if (announced) this.#tracker.add(announced);
    const layer = await receiveLayer(this.#ctx, this.#env.content, this.#source, (received) => {
      if (announced) this.#tracker.update(announced, received);
    });
    this.#tracker.add(layer);
    return layer;
  }

  async #commit(name: string, active: string, labels: Record<string, string>): Promise<void> {
    try {
      await this.#snapshotter.commit(this.#ctx, name, active, { labels });
    } catch (error) {
      // Under its chain id it is the same snapshot, whoever made it.
      if (!hasCode(error, Code.AlreadyExists) || this.#target.key !== '') {
        throw StatusError.wrap(error, `failed to commit snapshot ${active}`);
      }
      await this.#discard(active);
    }
  }

  /** Those that the snapshotter is configured with; all, where no configuration names it. */
  #differs(): Differ[] {
    const { unpackSupport } = this.#env;
    const own = unpackSupport.filter(
      ({ snapshotter }) => (snapshotter ?? this.#snapshotter.name) === this.#snapshotter.name,
    );
    return [...new Set((own.length > 0 ? own : unpackSupport).flatMap(({ differs }) => differs))];
  }

  async #exists(name: string): Promise<boolean> {
    try {
      await this.#snapshotter.stat(this.#ctx, name);
      return true;
    } catch (error) {
      if (hasCode(error, Code.NotFound)) return false;
      throw error;
    }
  }

  async #discard(active: string): Promise<void> {
    try {
      await this.#snapshotter.remove({ ...this.#ctx, signal: undefined }, active);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) this.#env.log.error('failed to cleanup', { key: active, error });
    }
  }
}

/** Of a layer on a chain: OCI image specification, layer chain id. */
function chainId(parent: string, diffId: string): string {
  return parent === '' ? (chainIds([diffId])[0] ?? diffId) : digestOf(`${parent} ${diffId}`);
}
