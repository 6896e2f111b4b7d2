import { randomUUID } from 'node:crypto';
import { Code, hasCode, StatusError, unknown } from '@gantry/api';
import type { ContentStore } from '@gantry/daemon/core/content/content-store.ts';
import { KeyedLock } from '@gantry/daemon/core/content/keyed-lock.ts';
import type { Differ } from '@gantry/daemon/core/diff/differ.ts';
import { nodeKeyPayloads } from '@gantry/daemon/core/diff/node-keys.ts';
import type { RequestContext } from '@gantry/daemon/core/request-context.ts';
import type { NamespacedSnapshotter, SnapshotterRegistry } from '@gantry/daemon/core/snapshots/snapshot-service.ts';
import { applyWith } from '@gantry/daemon/plugins/transfer-local/apply-with.ts';
import { inheritedLabels } from '@gantry/daemon/plugins/transfer-local/chain-unpack.ts';
import { annotateForSnapshotter } from '@gantry/daemon/plugins/transfer-local/image-walk.ts';
import { chainIds } from '@gantry/oci';
import type { CriImage } from './cri-image.ts';

/** Unpacks images that came without, or for another snapshotter, when a container is to be made of them. */
export class ImageUnpacker {
  readonly #content: ContentStore;
  readonly #snapshotters: SnapshotterRegistry;
  readonly #differs: ReadonlyMap<string, Differ>;
  readonly #locks = new KeyedLock();

  readonly #annotate: boolean;

  /** @param annotate snapshots are labelled with what remote snapshotters want to know, as those of a pull are */
  constructor(
    content: ContentStore,
    snapshotters: SnapshotterRegistry,
    differs: ReadonlyMap<string, Differ>,
    annotate: boolean,
  ) {
    this.#annotate = annotate;
    this.#content = content;
    this.#snapshotters = snapshotters;
    this.#differs = differs;
  }

  /** Afterwards the image's snapshots are there. @throws NotFound if they are not, and its layers neither */
  async ensure(ctx: RequestContext, name: string, image: CriImage): Promise<void> {
    if (image.chainId === '') return;
    const snapshotter = this.#snapshotters.get(ctx, name);
    if (await isThere(ctx, snapshotter, image.chainId)) return;
    await this.#locks.run(`${snapshotter.name} ${image.chainId}`, async () => {
      try {
        await this.#unpack(ctx, snapshotter, image);
      } catch (error) {
        throw StatusError.wrap(error, 'error unpacking image');
      }
    });
  }

  async #unpack(ctx: RequestContext, snapshotter: NamespacedSnapshotter, image: CriImage): Promise<void> {
    const diffIds = image.config.rootfs?.diff_ids ?? [];
    const chain = chainIds(diffIds);
    const name = image.tags[0] ?? image.digests[0] ?? image.id;
    const layers = this.#annotate
      ? annotateForSnapshotter(image.layers, { name, manifest: image.manifest })
      : image.layers;
    for (const [index, layer] of layers.entries()) {
      const chainId = chain[index]!;
      if (await isThere(ctx, snapshotter, chainId)) continue;
      const key = `extract-cri-${randomUUID()} ${chainId}`;
      const labels = { ...inheritedLabels(layer), 'containerd.io/snapshot.ref': chainId };
      const mounts = await snapshotter.prepare(ctx, key, chain[index - 1] ?? '', { labels });
      try {
        const payloads = { processorPayloads: nodeKeyPayloads(layer) };
        const { digest } = await applyWith(this.#differsFor(snapshotter.name), ctx, layer, mounts, payloads);
        if (digest !== diffIds[index])
          throw unknown(`wrong diff id "${digest}" calculated on extraction "${diffIds[index]}"`);
        await snapshotter.commit(ctx, chainId, key, { labels });
      } catch (error) {
        await snapshotter.remove({ ...ctx, signal: undefined }, key).catch(ignoreMissing);
        // Somebody else had it there first.
        if (!hasCode(error, Code.AlreadyExists)) throw error;
      }
    }
    const label = `containerd.io/gc.ref.snapshot.${snapshotter.name}`;
    await this.#content.update(ctx, { digest: image.id, labels: { [label]: image.chainId } }, [`labels.${label}`]);
  }

  /** Some snapshotters have a differ of their own. */
  #differsFor(snapshotter: string): Differ[] {
    const own = this.#differs.get(snapshotter);
    const walking = this.#differs.get('walking');
    return [...new Set([own, walking, ...this.#differs.values()])].filter((differ) => differ !== undefined);
  }
}

async function isThere(ctx: RequestContext, snapshotter: NamespacedSnapshotter, key: string): Promise<boolean> {
  try {
    await snapshotter.stat(ctx, key);
    return true;
  } catch (error) {
    ignoreMissing(error);
    return false;
  }
}

function ignoreMissing(error: unknown): void {
  if (!hasCode(error, Code.NotFound)) throw error;
}
