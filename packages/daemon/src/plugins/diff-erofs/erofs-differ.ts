/**
 * The differ of the erofs snapshotter: a layer becomes an EROFS image in the snapshot's directory, without being unpacked. It works
 * on that snapshotter's mounts only; for others, the next differ is asked.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { invalidArgument, unimplemented } from '@gantry/api';
import {
  type ByteSource,
  type Compression,
  type ErofsLayerParams,
  type ErofsLayerResult,
  JobError,
  type LayerEncoding,
  LayerMediaType,
  MISSING_BELOW,
  type NativeLayerResult,
  pumpToPort,
  type RunOptions,
  SPARSE_IN_INDEX,
  type WorkerPool,
} from '@gantry/archive';
import type { Mount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { ContentStore } from '../../core/content/content-store.ts';
import type { ApplyOptions, Differ, DiffOptions, GrowingBlob } from '../../core/diff/differ.ts';
import { layerEncoding, type StreamProcessor } from '../../core/diff/stream-processors.ts';
import type { Logger } from '../../core/log/logger.ts';
import type { MountManager } from '../../core/mounts/mount-manager.ts';
import { withPerformed } from '../../core/mounts/with-activation.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { readAll, runOptions, type WalkingDiffer } from '../diff-walking/walking-differ.ts';
import { exists, imageName, layerDirectory, upperName } from '../snapshot-erofs/layer-files.ts';

export interface ErofsDifferOptions {
  content: ContentStore;
  pool: WorkerPool;
  mounts: MountManager;
  /** Writes layers of upper directories. */
  walking: WalkingDiffer;
  /** Keep archives as they are, with an index over them. */
  tarIndex: boolean;
  /** Programs for media types that are not known here, by id. */
  processors?: Readonly<Record<string, StreamProcessor>>;
  /** Bytes that an unpacked layer may have. Default: no limit. */
  sizeLimit?: (packedSize: number) => number | undefined;
  log: Logger;
}

const nativePrefix = 'application/vnd.erofs.layer';

/** What is to be made of a layer. */
interface Plan {
  directory: string;
  /** The layer is an image already. */
  native: { mediaType: string; compression: Compression } | undefined;
  /** How it becomes a tar, if it is none. */
  encoding: LayerEncoding;
  maxSize: number | undefined;
}

/** Runs a job with the blob as its source. */
type RunJob = <T>(job: string, params: object) => Promise<T>;

export class ErofsDiffer implements Differ {
  readonly #options: ErofsDifferOptions;

  constructor(options: ErofsDifferOptions) {
    this.#options = options;
  }

  async apply(
    ctx: RequestContext,
    descriptor: Descriptor,
    mounts: Mount[],
    options: ApplyOptions = {},
  ): Promise<Descriptor> {
    const plan = await this.#plan(descriptor, mounts, options);
    return await this.#make(ctx, descriptor, plan, mounts, options, (job, params) =>
      this.#runOnBlob(ctx, descriptor, job, params, runOptions(ctx, options)),
    );
  }

  /** The image is made while the blob is still being written. What turns out to need a second look waits for all of it. */
  async applyGrowing(
    ctx: RequestContext,
    descriptor: Descriptor,
    blob: GrowingBlob,
    mounts: Mount[],
    options: ApplyOptions = {},
  ): Promise<Descriptor> {
    const plan = await this.#plan(descriptor, mounts, options);
    let first = true;
    return await this.#make(ctx, descriptor, plan, mounts, options, async <T>(job: string, params: object) => {
      if (first) {
        first = false;
        return await this.#runOnGrowing<T>(blob, job, params, runOptions(ctx, options));
      }
      await blob.complete;
      return await this.#runOnBlob<T>(ctx, descriptor, job, params, runOptions(ctx, options));
    });
  }

  async #plan({ mediaType, size }: Descriptor, mounts: readonly Mount[], options: ApplyOptions): Promise<Plan> {
    const { processors = {}, sizeLimit } = this.#options;
    const [base = '', suffix] = mediaType.split('+', 2);
    const isNative = mediaType.startsWith(nativePrefix);
    if (isNative && suffix !== undefined && suffix !== 'zstd') {
      throw invalidArgument(`unsupported erofs layer suffix: ${suffix}`);
    }
    const encoding = isNative ? {} : layerEncoding(mediaType, processors, options.processorPayloads);
    const directory = await layerDirectory(mounts);
    if (directory === undefined) throw unimplemented('mount layer type must be erofs-layer: not implemented');
    const compression: Compression = suffix === 'zstd' ? 'zstd' : 'none';
    const native = isNative ? { mediaType: base, compression } : undefined;
    return { directory, native, encoding, maxSize: sizeLimit?.(size) };
  }

  async #make(
    ctx: RequestContext,
    descriptor: Descriptor,
    { directory, native, encoding, maxSize }: Plan,
    mounts: readonly Mount[],
    options: ApplyOptions,
    run: RunJob,
  ): Promise<Descriptor> {
    const image = path.join(directory, imageName);
    const common = { image, sync: options.syncFs ?? false, ...(maxSize !== undefined && { maxSize }) };
    if (native) {
      const { compression, mediaType } = native;
      const { digest, size } = await run<NativeLayerResult>('native-layer', { ...common, compression });
      return { mediaType, digest, size };
    }
    const params = { ...common, ...encoding, uuid: layerUuid(descriptor.digest) };
    const result = await this.#convert(ctx, params, mounts, options, run);
    for (const warning of result.warnings) this.#options.log.warn(warning, { digest: descriptor.digest });
    return { mediaType: LayerMediaType.tar, digest: result.diffId, size: result.size };
  }

  /** Most layers are whole in themselves; one that is not is made again, looking at those below it. */
  async #convert(
    ctx: RequestContext,
    base: Omit<ErofsLayerParams, 'source'>,
    mounts: readonly Mount[],
    options: ApplyOptions,
    run: RunJob,
  ): Promise<ErofsLayerResult> {
    const below = mounts.filter(({ type }) => type === 'erofs');
    let params = { ...base, tarIndex: this.#options.tarIndex };
    for (;;) {
      try {
        const standalone = options.standalone || below.length > 0;
        return await run<ErofsLayerResult>('erofs-layer', { ...params, standalone });
      } catch (error) {
        if (!(error instanceof JobError)) throw error;
        if (error.code === SPARSE_IN_INDEX) {
          params = { ...params, tarIndex: false };
          continue;
        }
        if (error.code !== MISSING_BELOW || options.standalone || below.length === 0) throw error;
      }
      return await withPerformed(this.#options.mounts, ctx, 'erofs-diffapply', below, (lowers) =>
        run<ErofsLayerResult>('erofs-layer', { ...params, lowers }),
      );
    }
  }

  /** A worker reads a local blob itself; the bytes of a remote store are sent to it. */
  async #runOnBlob<T>(
    ctx: RequestContext,
    descriptor: Descriptor,
    job: string,
    params: object,
    options: RunOptions,
  ): Promise<T> {
    const { pool, content } = this.#options;
    await using reader = await content.reader(ctx, descriptor.digest);
    if (reader.path !== undefined) {
      const source: ByteSource = { kind: 'file', path: reader.path, length: reader.size };
      return await pool.run<T>(job, { ...params, source }, options);
    }
    const { port1, port2 } = new MessageChannel();
    const source: ByteSource = { kind: 'port', port: port2 };
    try {
      const running = pool.run<T>(job, { ...params, source }, { ...options, transfer: [port2] });
      // A failure to read reaches the job through the port, and is reported by it.
      const pumping = pumpToPort(readAll(reader), port1).catch(() => {});
      const result = await running;
      await pumping;
      return result;
    } finally {
      port1.close();
    }
  }

  async #runOnGrowing<T>(blob: GrowingBlob, job: string, params: object, options: RunOptions): Promise<T> {
    const source: ByteSource = { kind: 'growing', path: blob.path };
    const running = this.#options.pool.start<T>(job, { ...params, source }, options);
    const stop = blob.onGrowth((available) => running.post({ available }));
    blob.complete.then(
      () => running.post({ end: true }),
      (error: Error) => running.post({ error: error.message }),
    );
    try {
      return await running.result;
    } finally {
      stop();
    }
  }

  /** Only what an active snapshot of files adds; images are compared by the next differ, through their mounts. */
  async diff(ctx: RequestContext, _lower: Mount[], upper: Mount[], options: DiffOptions = {}): Promise<Descriptor> {
    const directory = await layerDirectory(upper);
    const isFiles = upper.at(-1)?.options.some((option) => option.startsWith('upperdir=') || option === 'rw') ?? false;
    if (directory === undefined || !isFiles || upper[0]?.type.startsWith('mkfs/')) {
      throw unimplemented('unsupported layer for erofsDiff Compare method: not implemented');
    }
    const made = (await exists(path.join(directory, imageName)))
      ? undefined
      : await this.#options.walking.diffUpper(ctx, path.join(directory, upperName), options);
    if (!made) throw unimplemented('the snapshot is not only files: not implemented');
    return made;
  }
}

/** The UUID of a layer's image, a version 5 one of its digest, so that the same layer gives the same image. */
function layerUuid(digest: string): string {
  const urlNamespace = Buffer.from('6ba7b8119dad11d180b400c04fd430c8', 'hex');
  const bytes = createHash('sha1').update(urlNamespace).update(`erofs:blobs/${digest}`).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x50;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex');
}
