import { Code, hasCode, StatusError, unimplemented } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { DiffOptions } from '../../core/diff/differ.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { NamespacedSnapshotter } from '../../core/snapshots/snapshot-service.ts';
import type { TransferOptions } from '../../core/transfer/transferrer.ts';
import { verifiedBytes } from './content-access.ts';
import { describe } from './endpoints.ts';
import { randomPart, type TransferEnvironment, withLease } from './environment.ts';
import type { LayerStreamEndpoint, SnapshotEndpoint } from './layer-endpoints.ts';
import { ProgressTracker } from './progress-tracker.ts';

/** Diff: what a snapshot adds to its parent (or to another snapshot) as a layer, sent to the client. */
export async function diffSnapshot(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: SnapshotEndpoint,
  destination: LayerStreamEndpoint,
  options: TransferOptions,
): Promise<void> {
  const report = options.progress ?? (() => undefined);
  try {
    await withLease(ctx, env.leases, async (leased) => {
      report({ event: `Comparing ${describe(source)}` });
      const layer = await makeLayer(leased, env, source, destination);
      const { labels } = await env.content.info(leased, layer.digest);
      const annotations = { 'containerd.io/uncompressed': labels['containerd.io/uncompressed'] ?? '' };
      using tracker = new ProgressTracker(describe(source), 'sending', options);
      tracker.add(layer);
      const sender = destination.sender();
      let sent = 0;
      for await (const chunk of verifiedBytes(leased, env.content, layer.digest)) {
        await sender.write(chunk);
        sent += chunk.length;
        tracker.update(layer, sent);
      }
      tracker.complete(layer);
      report({ event: 'compared', name: source.key, descriptor: { ...layer, annotations } });
      report({ event: `Completed diff of ${describe(source)}` });
    });
  } finally {
    destination.close();
  }
}

async function makeLayer(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: SnapshotEndpoint,
  { mediaType, labels, sourceDateEpoch }: LayerStreamEndpoint,
): Promise<Descriptor> {
  const snapshotter = env.snapshotters.get(ctx, source.snapshotter);
  const info = await snapshotter.stat(ctx, source.key);
  await using views = new Views(ctx, env, snapshotter);
  const lower = await views.open(source.parent || info.parent, 'parent');
  const upper =
    info.kind === 'committed' ? await views.open(source.key, 'upper') : await snapshotter.mounts(ctx, source.key);
  const options: DiffOptions = {
    ...(mediaType !== '' && { mediaType }),
    labels,
    ...(sourceDateEpoch !== undefined && { sourceDateEpoch }),
  };
  let last: unknown = unimplemented('no differ is loaded');
  for (const differ of new Set(env.unpackSupport.flatMap(({ differs }) => differs))) {
    try {
      return await differ.diff(ctx, lower, upper, options);
    } catch (error) {
      if (!hasCode(error, Code.Unimplemented)) {
        throw StatusError.wrap(error, `failed to make a layer of ${describe(source)}`);
      }
      last = error;
    }
  }
  throw last;
}

/** Views that live as long as a comparison. */
class Views implements AsyncDisposable {
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #snapshotter: NamespacedSnapshotter;
  readonly #keys: string[] = [];

  constructor(ctx: RequestContext, env: TransferEnvironment, snapshotter: NamespacedSnapshotter) {
    this.#ctx = ctx;
    this.#env = env;
    this.#snapshotter = snapshotter;
  }

  async open(name: string, what: string): Promise<Mount[]> {
    const key = `${name}-${what}-view-${process.hrtime.bigint() % 1_000_000_000n}-${randomPart()}`;
    const mounts = await this.#snapshotter.view(this.#ctx, key, name);
    this.#keys.push(key);
    return mounts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const key of this.#keys) {
      try {
        await this.#snapshotter.remove({ ...this.#ctx, signal: undefined }, key);
      } catch (error) {
        this.#env.log.error('failed to cleanup', { key, error });
      }
    }
  }
}
