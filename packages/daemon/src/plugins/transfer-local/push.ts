import { StatusError } from '@gantry/api';
import {
  allPlatforms,
  anyOfPlatforms,
  childrenOf,
  type Descriptor,
  isIndexType,
  isManifestType,
  isNonDistributable,
} from '@gantry/oci';
import { type RegistryClient, UnexpectedStatusError } from '@gantry/registry';
import type { RequestContext } from '../../core/request-context.ts';
import type { TransferOptions } from '../../core/transfer/transferrer.ts';
import { contentBytes, hasContent, readManifest } from './content-access.ts';
import { addSource, distributionSource, mountCandidate } from './distribution-source.ts';
import { describe, type ImageStoreEndpoint, type RegistryEndpoint } from './endpoints.ts';
import { type TransferEnvironment, withLease } from './environment.ts';
import { checkDepth } from './image-walk.ts';
import { ProgressTracker } from './progress-tracker.ts';
import { Semaphore } from './semaphore.ts';
import { TaskGroup } from './task-group.ts';

/** Push: blobs side by side, then manifests, and the index that names them last, as registries demand. */
export async function push(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: ImageStoreEndpoint,
  destination: RegistryEndpoint,
  options: TransferOptions,
): Promise<void> {
  const report = options.progress ?? (() => undefined);
  await withLease(ctx, env.leases, async (leased) => {
    const { name, target } = await env.images.get(leased, source.name);
    report({ event: `Pushing to ${describe(destination)}` });
    report({ event: 'pushing content', name, descriptor: target });
    await using client = destination.open();
    using tracker = new ProgressTracker(name, 'uploading', options);
    const { reference } = destination;
    // With the digest, only this one descriptor gets the tag.
    const pinned = reference.includes('@') ? reference : `${reference}@${target.digest}`;
    const job = new ImagePush(leased, env, client, pinned, tracker, new Semaphore(destination.maxTransfers));
    await job.run(target, source);
    report({ event: 'pushed content', name, descriptor: target });
    report({ event: `Completed push to ${describe(destination)}`, descriptor: target });
  });
}

class ImagePush {
  readonly #ctx: RequestContext;
  readonly #env: TransferEnvironment;
  readonly #client: RegistryClient;
  readonly #reference: string;
  readonly #tracker: ProgressTracker;
  /** Of this push alone; that of the daemon holds as well. */
  readonly #limit: Semaphore;
  readonly #seen = new Set<string>();
  readonly #blobs: Descriptor[] = [];
  /** Children before parents. */
  readonly #manifests: Descriptor[] = [];

  constructor(
    ctx: RequestContext,
    env: TransferEnvironment,
    client: RegistryClient,
    reference: string,
    tracker: ProgressTracker,
    limit: Semaphore,
  ) {
    this.#limit = limit;
    this.#ctx = ctx;
    this.#env = env;
    this.#client = client;
    this.#reference = reference;
    this.#tracker = tracker;
  }

  async run(root: Descriptor, source: ImageStoreEndpoint): Promise<void> {
    const { platforms } = source;
    const matcher = platforms.length === 0 ? allPlatforms : anyOfPlatforms(...platforms);
    await this.#collect(root, 0, (child) => child.platform === undefined || matcher.match(child.platform));
    const group = new TaskGroup(this.#ctx.signal);
    for (const blob of this.#blobs) {
      const { signal } = group;
      const upload = (): Promise<void> => this.#push(blob, signal);
      group.run(() => this.#limit.run(() => this.#env.uploads.run(upload, signal), signal));
    }
    await group.wait();
    for (const manifest of this.#manifests) await this.#push(manifest, this.#ctx.signal);
  }

  async #collect(descriptor: Descriptor, depth: number, fits: (child: Descriptor) => boolean): Promise<void> {
    checkDepth(depth);
    const { digest, mediaType } = descriptor;
    if (this.#seen.has(digest)) return;
    this.#seen.add(digest);
    this.#tracker.add(descriptor);
    if (!isManifestType(mediaType) && !isIndexType(mediaType)) {
      // containerd's service pushes layers that may not be passed on like others. Only where they were never had, they are
      // left to their URLs.
      const wanted = !isNonDistributable(mediaType) || (await hasContent(this.#ctx, this.#env.content, digest));
      if (wanted) this.#blobs.push(descriptor);
      return;
    }
    const children = childrenOf(descriptor, await readManifest(this.#ctx, this.#env.content, descriptor));
    this.#tracker.addChildren(descriptor, children);
    for (const child of children.filter(fits)) await this.#collect(child, depth + 1, fits);
    this.#manifests.push(descriptor);
  }

  async #push(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<void> {
    const { content } = this.#env;
    const ctx = { ...this.#ctx, signal };
    const { labels } = await content.info(ctx, descriptor.digest);
    try {
      const outcome = await this.#client.push(this.#reference, descriptor, {
        // The connection takes a piece whole before it asks for the next; two more are to spare.
        open: () => contentBytes(ctx, content, descriptor.digest, { buffers: 4 }),
        mountFrom: mountCandidate(labels, this.#reference),
        onProgress: (sent) => this.#tracker.update(descriptor, sent),
        signal,
      });
      if (outcome === 'pushed') this.#tracker.complete(descriptor);
      else this.#tracker.exists(descriptor);
    } catch (error) {
      const failed = StatusError.wrap(error, `failed to push ${descriptor.digest}`);
      // What a push of some platforms comes to: an index goes whole, and has to find all it names.
      const incomplete =
        isIndexType(descriptor.mediaType) && error instanceof UnexpectedStatusError && error.status === 400;
      if (!incomplete) throw failed;
      throw StatusError.wrap(
        failed,
        'manifest list/index references to blobs and/or manifests are missing in your target registry',
      );
    }
    const { key, repository } = distributionSource(this.#reference);
    const value = addSource(labels[key], key, repository);
    if (value !== undefined) {
      await content.update(ctx, { digest: descriptor.digest, labels: { [key]: value } }, [`labels.${key}`]);
    }
  }
}
