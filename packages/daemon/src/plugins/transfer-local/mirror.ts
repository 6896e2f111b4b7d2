import { failedPrecondition, invalidArgument, StatusError } from '@gantry/api';
import {
  childrenOf,
  type Descriptor,
  digestOfReference,
  formatReference,
  hostOf,
  isIndexType,
  isManifestType,
  isNonDistributable,
  MediaType,
  parseReference,
  repositoryOf,
  tagOf,
} from '@gantry/oci';
import type { PushOutcome, RangeOptions, RegistryClient } from '@gantry/registry';
import type { RequestContext } from '../../core/request-context.ts';
import type { TransferOptions } from '../../core/transfer/transferrer.ts';
import { describe, type RegistryEndpoint } from './endpoints.ts';
import type { TransferEnvironment } from './environment.ts';
import { checkDepth, Visited } from './image-walk.ts';
import { rangesOf } from './layer-ranges.ts';
import { fetchManifest, narrowIndex } from './mirror-manifests.ts';
import { ProgressTracker } from './progress-tracker.ts';
import { Semaphore } from './semaphore.ts';
import { TaskGroup } from './task-group.ts';

/**
 * Mirror: an image from one registry to another. Blobs are mounted where both are at one registry, else they stream through;
 * nothing goes through the content store. Manifests follow what they name. What the destination has costs one question.
 */
export async function mirror(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: RegistryEndpoint,
  destination: RegistryEndpoint,
  options: TransferOptions,
): Promise<void> {
  const report = options.progress ?? (() => undefined);
  await using from = source.open();
  await using to = destination.open();
  report({ event: `Resolving from ${describe(source)}` });
  const { name, descriptor } = await from.resolve(source.reference, ctx.signal).catch((error: unknown) => {
    throw StatusError.wrap(error, 'failed to resolve image');
  });
  if (descriptor.mediaType === MediaType.DockerManifestV1) {
    throw invalidArgument('schema 1 image manifests are no longer supported: invalid argument');
  }
  report({ event: `Mirroring from ${describe(source)} to ${describe(destination)}` });
  using tracker = new ProgressTracker(name, 'uploading', options);
  const limit = new Semaphore(smaller(source.maxTransfers, destination.maxTransfers));
  const ranges = rangesOf(env, source);
  const job = new Mirror(ctx, { env, from, to, source: name, destination, tracker, limit, ranges });
  const root = await job.run(descriptor);
  report({ event: 'mirrored', name: destination.reference, descriptor: root });
  report({ event: `Completed mirror to ${describe(destination)}`, descriptor: root });
}

/** Of two limits, 0 being none. */
function smaller(a: number, b: number): number {
  return a === 0 || b === 0 ? a + b : Math.min(a, b);
}

/** Images of one index whose blobs are copied at once: their manifests are held in memory meanwhile. */
const maxManifests = 4;

interface MirrorJob {
  env: TransferEnvironment;
  from: RegistryClient;
  to: RegistryClient;
  /** References. */
  source: string;
  destination: RegistryEndpoint;
  tracker: ProgressTracker;
  limit: Semaphore;
  ranges: RangeOptions | undefined;
}

class Mirror {
  readonly #job: MirrorJob;
  readonly #group: TaskGroup;
  readonly #signal: AbortSignal;
  readonly #locator: string;
  readonly #mountFrom: string | undefined;
  readonly #manifests = new Semaphore(maxManifests);
  /** One copy of each, however often it is named. */
  readonly #blobs = new Map<string, Promise<void>>();
  readonly #visited = new Visited();

  constructor(ctx: RequestContext, job: MirrorJob) {
    this.#job = job;
    this.#group = new TaskGroup(ctx.signal);
    this.#signal = this.#group.signal;
    const [from, to] = [parseReference(job.source), parseReference(job.destination.reference)];
    this.#locator = to.locator;
    this.#mountFrom = hostOf(from) === hostOf(to) && from.locator !== to.locator ? repositoryOf(from) : undefined;
  }

  /** Answers what the destination's name stands for now. */
  async run(root: Descriptor): Promise<Descriptor> {
    const { destination } = this.#job;
    if (!isManifestType(root.mediaType) && !isIndexType(root.mediaType)) {
      throw invalidArgument(`only manifests may be mirrored, not ${root.mediaType || 'what has no media type'}`);
    }
    const bad = destination.extraTags.find((tag) => !/^\w[\w.-]{0,127}$/.test(tag));
    if (bad !== undefined) throw invalidArgument(`invalid tag "${bad}"`);
    const reference = parseReference(destination.reference);
    const narrowed = isIndexType(root.mediaType) && destination.platforms.length > 0;
    const wanted = digestOfReference(reference);
    if (wanted !== '' && (narrowed || wanted !== root.digest)) {
      const found = narrowed ? 'an index made for some platforms' : root.digest;
      throw failedPrecondition(`${destination.reference} cannot name ${found}: failed precondition`);
    }
    let bytes: Uint8Array | undefined;
    let made = root;
    if (narrowed) {
      const original = await fetchManifest(this.#job.from, this.#job.source, root, this.#signal);
      ({ descriptor: made, bytes } = narrowIndex(root, original, destination.platforms));
    }
    const tags = new Set([tagOf(reference), ...destination.extraTags].filter((tag) => tag !== ''));
    this.#group.run(async () => {
      const body = (await this.#copy(made, 0, bytes)) ?? bytes;
      for (const tag of tags) await this.#put(made, tag, body);
    });
    await this.#group.wait();
    return made;
  }

  /** Everything below, then itself by its digest. Answers its bytes, if they had to be had. */
  async #copy(descriptor: Descriptor, depth: number, known?: Uint8Array): Promise<Uint8Array | undefined> {
    checkDepth(depth);
    const { mediaType } = descriptor;
    if (!this.#visited.first(descriptor)) return undefined;
    this.#job.tracker.add(descriptor);
    if (!isManifestType(mediaType) && !isIndexType(mediaType)) {
      await this.#blob(descriptor);
      return undefined;
    }
    const { destination, from, source, to, tracker } = this.#job;
    if (!destination.referrers && (await to.holds(this.#locator, descriptor, this.#signal))) {
      tracker.exists(descriptor);
      return undefined;
    }
    const bytes = known ?? (await fetchManifest(from, source, descriptor, this.#signal));
    const children = childrenOf(descriptor, bytes);
    tracker.addChildren(descriptor, children);
    if (isManifestType(mediaType)) {
      await this.#all(children.map((child) => this.#blob(child)));
    } else {
      // Indexes one after another, so that those waiting for a place never hold one.
      const images = children.filter((child) => !isIndexType(child.mediaType));
      const copy = async (child: Descriptor): Promise<void> => void (await this.#copy(child, depth + 1));
      await this.#all(images.map((child) => this.#manifests.run(() => copy(child), this.#signal)));
      for (const child of children) if (isIndexType(child.mediaType)) await this.#copy(child, depth + 1);
    }
    await this.#put(descriptor, '', bytes);
    if (destination.referrers) await this.#referrers(descriptor, depth);
    return bytes;
  }

  /** Signatures and the like, each after what it is about. */
  async #referrers(subject: Descriptor, depth: number): Promise<void> {
    const { from, source, tracker } = this.#job;
    const attached = await from.referrers(source, subject, { signal: this.#signal });
    tracker.addChildren(subject, attached);
    for (const referrer of attached) await this.#copy(referrer, depth + 1);
  }

  /** Waits for all, also when one fails, which stops the others: nothing goes on behind an answer. */
  async #all(copies: readonly Promise<void>[]): Promise<void> {
    for (const copy of copies) copy.catch((error: unknown) => this.#group.fail(error));
    const failed = (await Promise.allSettled(copies)).find(({ status }) => status === 'rejected');
    if (failed) throw (failed as PromiseRejectedResult).reason;
  }

  /** `tag`: '' for none, by digest only. */
  async #put(descriptor: Descriptor, tag: string, known: Uint8Array | undefined): Promise<void> {
    const { from, to, source, tracker } = this.#job;
    const object = tag === '' ? `@${descriptor.digest}` : `${tag}@${descriptor.digest}`;
    const outcome = await this.#pushed(descriptor, () =>
      to.push(formatReference({ locator: this.#locator, object }), descriptor, {
        open: async function* (this: Mirror) {
          yield known ?? (await fetchManifest(from, source, descriptor, this.#signal));
        }.bind(this),
        signal: this.#signal,
      }),
    );
    if (outcome === 'pushed') tracker.complete(descriptor);
    else tracker.exists(descriptor);
  }

  #blob(descriptor: Descriptor): Promise<void> {
    let copying = this.#blobs.get(descriptor.digest);
    if (!copying) {
      copying = this.#copyBlob(descriptor);
      this.#blobs.set(descriptor.digest, copying);
    }
    return copying;
  }

  async #copyBlob(descriptor: Descriptor): Promise<void> {
    // A registry must not get what may not be given away; clients fetch it from where its `urls` say.
    if (isNonDistributable(descriptor.mediaType)) return;
    const { env, from, to, source, ranges, tracker, limit } = this.#job;
    tracker.add(descriptor);
    const signal = this.#signal;
    const { data, size } = descriptor;
    let broken: unknown;
    const open = async function* (): AsyncGenerator<Uint8Array> {
      broken = undefined;
      if (data && data.length === size) yield data;
      else
        try {
          yield* from.fetch(source, descriptor, { ranges, signal });
        } catch (error) {
          broken = error;
          throw error;
        }
    };
    const push = (): Promise<PushOutcome> =>
      to.push(this.#locator, descriptor, {
        open,
        mountFrom: this.#mountFrom,
        onProgress: (sent) => tracker.update(descriptor, sent),
        signal,
      });
    const upload = async (): Promise<PushOutcome> => {
      try {
        return await this.#pushed(descriptor, push);
      } catch (error) {
        signal.throwIfAborted();
        // To the destination it looked like an upload that broke off.
        throw broken === undefined ? error : StatusError.wrap(broken, `failed to mirror ${descriptor.digest}`);
      }
    };
    const outcome = await limit.run(() => env.uploads.run(upload, signal), signal);
    if (outcome === 'exists') tracker.exists(descriptor);
    else if (outcome === 'mounted') tracker.mounted(descriptor);
    else tracker.complete(descriptor);
  }

  async #pushed(descriptor: Descriptor, push: () => Promise<PushOutcome>): Promise<PushOutcome> {
    try {
      return await push();
    } catch (error) {
      this.#signal.throwIfAborted();
      throw StatusError.wrap(error, `failed to mirror ${descriptor.digest}`);
    }
  }
}
