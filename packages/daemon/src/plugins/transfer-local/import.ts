import { Code, hasCode, unknown } from '@gantry/api';
import { type Descriptor, isIndexType, isManifestType, parseIndex } from '@gantry/oci';
import type { RequestContext } from '../../core/request-context.ts';
import type { TransferOptions } from '../../core/transfer/transferrer.ts';
import { hasContent, readManifest } from './content-access.ts';
import type { ImageStoreEndpoint, ImportEndpoint } from './endpoints.ts';
import { type TransferEnvironment, withLease } from './environment.ts';
import { arrived } from './growing-file.ts';
import { checkDepth, labelledChildren, type Selection, selectChildren, selectionOf, Visited } from './image-walk.ts';
import { importArchive } from './import-archive.ts';
import { ProgressTracker } from './progress-tracker.ts';
import { storeImages, storeImported } from './store-images.ts';
import { splitManifest, type UnpackTarget, unpackImage, unpackTargets } from './unpack.ts';

/** Import: an archive's blobs into the content store, its images unpacked and recorded under the names that fit. */
export async function importImages(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: ImportEndpoint,
  store: ImageStoreEndpoint,
  options: TransferOptions,
): Promise<void> {
  const report = options.progress ?? (() => undefined);
  // The image records are the last changes, and durable with all before them.
  await withLease({ ...ctx, step: true }, env.leases, async (leased) => {
    report({ event: 'Importing' });
    const index = await readArchive(leased, env, source);
    const { manifests } = parseIndex(await readManifest(leased, env.content, index), index.mediaType);
    using tracker = new ProgressTracker(store.name, 'importing', options);
    const targets = unpackTargets(leased, env, store.unpacks);
    const walk = new ImportWalk(leased, env, selectionOf(store), targets, tracker);
    await walk.visit(index, 0);
    if (walk.visited < 2) throw unknown('image might be filtered out');
    const save = async (descriptor: Descriptor, storing: typeof storeImages): Promise<void> => {
      try {
        for (const image of await storing({ ...leased, step: ctx.step }, env.images, store, descriptor)) {
          report({ event: 'saved', name: image.name, descriptor });
        }
      } catch (error) {
        // An image in the archive that no reference asked for.
        if (!hasCode(error, Code.NotFound)) throw error;
        env.log.info(`No images store for ${descriptor.digest}`);
      }
    };
    await save(index, storeImages);
    for (const manifest of manifests) await save(manifest, storeImported);
    report({ event: 'Completed import' });
  });
}

/** An archive that is no good is not read to its end. */
async function readArchive(ctx: RequestContext, env: TransferEnvironment, source: ImportEndpoint): Promise<Descriptor> {
  try {
    return await importArchive(ctx, env.content, source);
  } finally {
    source.close();
  }
}

/** Labels what was imported so that collection sees the tree, and unpacks the images asked for, one after another. */
class ImportWalk {
  visited = 0;
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #selection: Selection;
  readonly #targets: readonly UnpackTarget[];
  readonly #tracker: ProgressTracker;
  readonly #seen: Visited;

  constructor(
    ctx: RequestContext,
    env: TransferEnvironment,
    selection: Selection,
    targets: readonly UnpackTarget[],
    tracker: ProgressTracker,
  ) {
    this.#ctx = ctx;
    this.#env = env;
    this.#selection = selection;
    this.#seen = new Visited(selection);
    this.#targets = targets;
    this.#tracker = tracker;
  }

  async visit(descriptor: Descriptor, depth: number): Promise<void> {
    checkDepth(depth);
    this.#ctx.signal?.throwIfAborted();
    if (!this.#seen.first(descriptor)) return;
    this.visited++;
    const { mediaType, digest } = descriptor;
    if (!isManifestType(mediaType) && !isIndexType(mediaType)) return;
    // An archive of one platform keeps the index of all: what is not in it is passed over.
    if (depth > 1 && !(await hasContent(this.#ctx, this.#env.content, digest))) return;
    const all = await labelledChildren(this.#ctx, this.#env.content, descriptor);
    const children = selectChildren(descriptor, all, this.#selection);
    if (isManifestType(mediaType)) await this.#unpack(children);
    for (const child of children) await this.visit(child, depth + 1);
  }

  async #unpack(children: readonly Descriptor[]): Promise<void> {
    const { config, layers } = splitManifest(children, this.#targets);
    if (!config || layers.length === 0 || this.#targets.length === 0) return;
    await unpackImage(this.#ctx, this.#env, {
      targets: this.#targets,
      config,
      layers,
      fetchLayer: () => arrived,
      tracker: this.#tracker,
    });
  }
}
