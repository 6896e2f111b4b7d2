/**
 * The differ that every layer can go through: applies a tar to mounts, and compares two mounts file by file. The work is done by
 * the archive room's workers.
 */
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { MessageChannel } from 'node:worker_threads';
import { Code, hasCode, StatusError, unimplemented } from '@gantry/api';
import {
  type ApplyLayerParams,
  type ApplyLayerProgress,
  type ApplyLayerResult,
  type ApplyTarget,
  chunksFromPort,
  type DiffLayerParams,
  type DiffLayerResult,
  JobError,
  LayerMediaType,
  layerCompression,
  pumpToPort,
  type RunOptions,
  UPPER_UNSUPPORTED,
  type WorkerPool,
} from '@gantry/archive';
import { type Mount, readonlyMounts, withTempMount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { ContentReader, ContentStore, ContentWriter } from '../../core/content/content-store.ts';
import type { ApplyOptions, Differ, DiffOptions, GrowingBlob } from '../../core/diff/differ.ts';
import { layerEncoding, type StreamProcessor } from '../../core/diff/stream-processors.ts';
import type { Logger } from '../../core/log/logger.ts';
import type { MountManager } from '../../core/mounts/mount-manager.ts';
import { withActivation } from '../../core/mounts/with-activation.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { directTarget, directUpper } from './apply-target.ts';

export interface WalkingDifferOptions {
  content: ContentStore;
  pool: WorkerPool;
  /** For mounts that live as long as a call. */
  temp: string;
  /** Performs what the system cannot mount. */
  mounts?: MountManager;
  log: Logger;
  /** Programs for media types that are not known here, by id. */
  processors?: Readonly<Record<string, StreamProcessor>>;
  /** Bytes that an unpacked layer may have. Default: no limit. */
  sizeLimit?: (packedSize: number) => number | undefined;
}

/** All that the worker has to know of a layer but where it comes from and where it goes. */
type LayerParams = Omit<ApplyLayerParams, 'source' | 'target'>;

/** How a job of a call is run: ended with it, its progress told. */
export function runOptions(ctx: RequestContext, { onProgress }: ApplyOptions): RunOptions {
  return {
    signal: ctx.signal,
    ...(onProgress && { onProgress: (progress) => onProgress((progress as ApplyLayerProgress).read) }),
  };
}

export class WalkingDiffer implements Differ {
  readonly #options: WalkingDifferOptions;

  constructor(options: WalkingDifferOptions) {
    this.#options = options;
  }

  async apply(
    ctx: RequestContext,
    descriptor: Descriptor,
    mounts: Mount[],
    options: ApplyOptions = {},
  ): Promise<Descriptor> {
    const params = this.#params(descriptor, options);
    await using reader = await this.#options.content.reader(ctx, descriptor.digest);
    return await this.#onto(ctx, mounts, async (target) => {
      const job = this.#runApply(reader, { ...params, target }, runOptions(ctx, options));
      return this.#unpacked(descriptor, await job);
    });
  }

  /** Calls `run` with where a layer for these mounts is to be unpacked. */
  #onto<T>(ctx: RequestContext, mounts: Mount[], run: (target: ApplyTarget) => Promise<T>): Promise<T> {
    return withActivation(this.#options.mounts, ctx, 'fs-diffapply', mounts, async (system) => {
      const direct = directTarget(system);
      if (direct) return await run(direct);
      return await withTempMount(system, this.#options.temp, (root) => run({ root, kind: 'merged' }));
    });
  }

  async applyFile(ctx: RequestContext, file: string, mounts: Mount[]): Promise<void> {
    const { pool, sizeLimit, log } = this.#options;
    const { size } = await stat(file);
    const maxSize = sizeLimit?.(size);
    const source = { kind: 'file' as const, path: file, length: size };
    await this.#onto(ctx, mounts, async (target) => {
      const params: ApplyLayerParams = { source, target, ...(maxSize !== undefined && { maxSize }) };
      const { warnings } = await pool.run<ApplyLayerResult>('apply-layer', params, { signal: ctx.signal });
      for (const warning of warnings) log.warn(warning, { file });
    });
  }

  /** @throws Unimplemented for a media type that neither this differ nor a stream processor knows */
  #params(descriptor: Descriptor, options: ApplyOptions): LayerParams {
    const { processors = {}, sizeLimit } = this.#options;
    const maxSize = sizeLimit?.(descriptor.size);
    return {
      ...layerEncoding(descriptor.mediaType, processors, options.processorPayloads),
      ...(maxSize !== undefined && { maxSize }),
      ...(options.syncFs && { sync: true }),
      ...(options.standalone && { standalone: true }),
    };
  }

  /** Unpacks while the blob is still being written: the worker reads the file along. */
  async applyGrowing(
    ctx: RequestContext,
    descriptor: Descriptor,
    blob: GrowingBlob,
    mounts: Mount[],
    options: ApplyOptions = {},
  ): Promise<Descriptor> {
    const target = directTarget(mounts);
    if (!target) {
      await blob.complete;
      return await this.apply(ctx, descriptor, mounts, options);
    }
    const source = { kind: 'growing' as const, path: blob.path };
    const params = { ...this.#params(descriptor, options), source, target };
    const job = this.#options.pool.start<ApplyLayerResult>('apply-layer', params, runOptions(ctx, options));
    const stop = blob.onGrowth((available) => job.post({ available }));
    blob.complete.then(
      () => job.post({ end: true }),
      (error: Error) => job.post({ error: error.message }),
    );
    try {
      return this.#unpacked(descriptor, await job.result);
    } finally {
      stop();
    }
  }

  #unpacked(descriptor: Descriptor, result: ApplyLayerResult): Descriptor {
    for (const warning of result.warnings) {
      this.#options.log.warn(warning, { digest: descriptor.digest });
    }
    return { mediaType: LayerMediaType.tar, digest: result.diffId, size: result.size };
  }

  /** A worker reads a local blob itself; the bytes of a remote store are sent to it. */
  async #runApply(
    reader: ContentReader,
    params: Omit<ApplyLayerParams, 'source'>,
    options: RunOptions,
  ): Promise<ApplyLayerResult> {
    const { pool } = this.#options;
    if (reader.path !== undefined) {
      const source = { kind: 'file' as const, path: reader.path, length: reader.size };
      return await pool.run<ApplyLayerResult>('apply-layer', { ...params, source }, options);
    }
    const { port1, port2 } = new MessageChannel();
    const source = { kind: 'port' as const, port: port2 };
    try {
      const job = pool.run<ApplyLayerResult>('apply-layer', { ...params, source }, { ...options, transfer: [port2] });
      // A failure to read reaches the job through the port, and is reported by it.
      const pumping = pumpToPort(readAll(reader), port1).catch(() => {});
      const result = await job;
      await pumping;
      return result;
    } finally {
      port1.close();
    }
  }

  async diff(ctx: RequestContext, lower: Mount[], upper: Mount[], options: DiffOptions = {}): Promise<Descriptor> {
    const upperDirectory = directUpper(lower, upper);
    const direct = upperDirectory && (await this.diffUpper(ctx, upperDirectory, options));
    if (direct) return direct;
    return await this.#mounted(ctx, lower, async (lowerRoot) => {
      return await this.#mounted(ctx, upper, (upperRoot) =>
        this.#compare(ctx, { lower: lowerRoot, upper: upperRoot }, options),
      );
    });
  }

  /**
   * The layer that is in the upper directory of an overlay, without a look at what lies below. undefined: there is something in it
   * that only overlayfs understands.
   */
  async diffUpper(ctx: RequestContext, upper: string, options: DiffOptions = {}): Promise<Descriptor | undefined> {
    try {
      return await this.#compare(ctx, { upper, upperOnly: true }, options);
    } catch (error) {
      if (!(error instanceof JobError) || error.code !== UPPER_UNSUPPORTED) throw error;
      return undefined;
    }
  }

  async #compare(ctx: RequestContext, trees: DiffTrees, options: DiffOptions): Promise<Descriptor> {
    const mediaType = options.mediaType ?? LayerMediaType.tarGzip;
    const compression = layerCompression(mediaType);
    if (compression === undefined) throw unimplemented(`unsupported diff media type: ${mediaType}`);
    const sourceDateEpoch =
      options.sourceDateEpoch === undefined ? {} : { sourceDateEpoch: Number(options.sourceDateEpoch) };
    return await this.#writeLayer(ctx, mediaType, { ...trees, compression, ...sourceDateEpoch }, options);
  }

  #mounted<T>(ctx: RequestContext, mounts: Mount[], fn: (root: string) => Promise<T>): Promise<T> {
    const { mounts: manager, temp } = this.#options;
    return withActivation(manager, ctx, 'fs-diff', mounts, (system) => withTempMount(readonlyMounts(system), temp, fn));
  }

  async #writeLayer(
    ctx: RequestContext,
    mediaType: string,
    params: Omit<DiffLayerParams, 'target'>,
    options: DiffOptions,
  ): Promise<Descriptor> {
    const { content } = this.#options;
    const ref = options.ref || `${Date.now()}-${randomBytes(9).toString('base64url')}`;
    const writer = await content.writer(ctx, { ref });
    let committed = false;
    try {
      if (options.ref) await writer.truncate(0);
      const result = await this.#runDiff(ctx, params, writer);
      const labels = { ...options.labels, [UNCOMPRESSED]: result.diffId };
      try {
        await writer.commit({ size: result.size, expected: result.digest, labels });
      } catch (error) {
        if (!hasCode(error, Code.AlreadyExists)) throw error;
        await this.#labelExisting(ctx, result);
      }
      committed = true;
      return { mediaType, digest: result.digest, size: result.size };
    } finally {
      await writer.close();
      // An ingest under a name of the caller's stays for the caller to take up again or abort.
      if (!committed && !options.ref) await content.abort(ctx, ref).catch(ignoreMissing);
    }
  }

  async #runDiff(
    ctx: RequestContext,
    params: Omit<DiffLayerParams, 'target'>,
    writer: ContentWriter,
  ): Promise<DiffLayerResult> {
    const { port1, port2 } = new MessageChannel();
    const target = { kind: 'port' as const, port: port2 };
    const running = { signal: ctx.signal, transfer: [port2] };
    const job = this.#options.pool.run<DiffLayerResult>('diff-layer', { ...params, target }, running);
    const receiving = (async () => {
      for await (const chunk of chunksFromPort(port1)) await writer.write(chunk);
    })();
    // A job that never started has not taken its port, and so cannot end it.
    job.catch(() => port1.close());
    // Whichever side fails ends the other; the job's reason is the better one unless the store failed.
    const [result, received] = await Promise.allSettled([job, receiving]);
    if (result.status === 'rejected') {
      throw received.status === 'rejected' && isStatusError(received.reason) ? received.reason : result.reason;
    }
    if (received.status === 'rejected') throw received.reason;
    return result.value;
  }

  /** The same layer may be there from a pull, without the label that tells its diff id. */
  async #labelExisting(ctx: RequestContext, result: DiffLayerResult): Promise<void> {
    const { content } = this.#options;
    const info = await content.info(ctx, result.digest);
    if (info.labels[UNCOMPRESSED] !== undefined) return;
    const labels = { ...info.labels, [UNCOMPRESSED]: result.diffId };
    await content.update(ctx, { digest: result.digest, labels }, [`labels.${UNCOMPRESSED}`]);
  }
}

type DiffTrees = Pick<DiffLayerParams, 'lower' | 'upper' | 'upperOnly'>;

/** Label of a compressed layer with the digest of what is in it. */
const UNCOMPRESSED = 'containerd.io/uncompressed';

function isStatusError(error: unknown): boolean {
  return error instanceof StatusError;
}

function ignoreMissing(error: unknown): void {
  if (!hasCode(error, Code.NotFound)) throw error;
}

const READ_SIZE = 256 << 10;

/** A blob from its start to its end. */
export async function* readAll(reader: ContentReader): AsyncGenerator<Uint8Array> {
  let at = 0;
  while (at < reader.size) {
    const chunk = await reader.read(at, READ_SIZE);
    if (chunk.length === 0) throw new Error(`unexpected EOF: ${at} of ${reader.size} bytes`);
    at += chunk.length;
    yield chunk;
  }
}
