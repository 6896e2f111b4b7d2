import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode, StatusError } from '@gantry/api';
import { letGo } from '@gantry/archive/buffer-garbage.ts';
import { type Descriptor, refKey } from '@gantry/oci';
import type { BlobSource } from '@gantry/registry';
import type { ContentStore, ContentWriter } from '../../core/content/content-store.ts';
import { BackendAway } from '../../core/remote/backend-away.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { BatchedWrites } from './batched-writes.ts';
import { checkDocumentSize } from './content-access.ts';
import { GrowingFile } from './growing-file.ts';

/** Brings one blob from a registry into the content store: not at all if it is there, from where it broke if it was begun. */
export interface FetchRequest {
  content: ContentStore;
  descriptor: Descriptor;
  /** Of the blob, if it was not there before. */
  labels: Record<string, string>;
  /** Further ones, by what is in it; called where that is at hand. */
  labelsOf?: (bytes: Uint8Array) => Record<string, string>;
  /** Opens the blob's bytes from an offset on. */
  open: (offset: number, signal: AbortSignal | undefined) => BlobSource;
  /** Waits for a place among the daemon's downloads; held only while bytes come, not while they are made durable. */
  download: (copy: () => Promise<void>) => Promise<void>;
  /** Told of the bytes in the store so far. */
  onProgress: (offset: number) => void;
  /** Given the file that the bytes collect in, if it can be read along. Told how it ends; closing it is the receiver's. */
  onGrowing?: (file: GrowingFile) => void;
}

/** Answers false if the blob was there already. */
export async function fetchContent(ctx: RequestContext, given: FetchRequest): Promise<boolean> {
  const { content, descriptor } = given;
  let source: BlobSource | undefined;
  const request: FetchRequest = {
    ...given,
    open: (offset, signal) => {
      source = given.open(offset, signal);
      return source;
    },
  };
  checkDocumentSize(descriptor);
  let writer: ContentWriter;
  try {
    // What is there is found here, too, and held by the lease from then on: a collection may be under way.
    writer = await openWriter(ctx, content, descriptor);
  } catch (error) {
    if (hasCode(error, Code.AlreadyExists)) return false;
    throw error;
  }
  let growing: GrowingFile | undefined;
  let fresh: boolean;
  try {
    for (let first = true; ; first = false) {
      const resumed = writer.status().offset > 0;
      try {
        await request.download(async () => {
          // Not before the bytes come: an unpacking that reads along has a place among few.
          if (first) growing = await readAlong(request, writer);
          await copy(ctx, request, writer, growing);
        });
        fresh = await commit(writer, request);
        break;
      } catch (error) {
        if (!hasCode(error, Code.FailedPrecondition)) throw error;
        // What an earlier attempt left may be bad; only bytes of this attempt's own count against the registry. A mirror that
        // lies is left for the next endpoint.
        if (!resumed && !source?.distrust()) throw error;
        growing?.fail(error);
        growing = undefined;
        await writer.close();
        await dropIngest(ctx, content, refKey(descriptor));
        writer = await openWriter(ctx, content, descriptor);
      }
    }
    growing?.finish();
  } catch (error) {
    growing?.fail(error);
    await writer.close();
    // Bytes that do not match their digest must not be resumed; and half a blob must not go on filling the disk.
    const full = StatusError.from(error).code === Code.ResourceExhausted;
    if (!full && !hasCode(error, Code.FailedPrecondition)) throw error;
    await dropIngest(ctx, content, refKey(descriptor)).catch((second) => {
      if (!full) throw second;
    });
    throw full ? error : blame(StatusError.from(error), source);
  }
  await writer.close();
  return fresh;
}

/** Says which answer the wrong bytes came in. */
function blame(error: StatusError, source: BlobSource | undefined): StatusError {
  const origin = source?.origin ?? '';
  if (origin === '' || error.message.includes(origin)) return error;
  return new StatusError(error.code, `${error.message} (the bytes of ${origin})`, { cause: error });
}

async function readAlong(request: FetchRequest, writer: ContentWriter): Promise<GrowingFile | undefined> {
  const { onGrowing } = request;
  const { offset } = writer.status();
  if (!onGrowing || writer.path === undefined || offset > request.descriptor.size) return undefined;
  const file = await GrowingFile.open(writer.path, offset);
  onGrowing(file);
  return file;
}

async function commit(writer: ContentWriter, { descriptor, labels, labelsOf }: FetchRequest): Promise<boolean> {
  const { bytes } = writer;
  const all = bytes?.length === descriptor.size && labelsOf ? { ...labels, ...labelsOf(bytes) } : labels;
  try {
    await writer.commit({ size: descriptor.size, expected: descriptor.digest, labels: all });
    return true;
  } catch (error) {
    if (hasCode(error, Code.AlreadyExists)) return false;
    throw StatusError.wrap(error, `failed commit on ref "${refKey(descriptor)}"`);
  }
}

async function dropIngest(ctx: RequestContext, content: ContentStore, ref: string): Promise<void> {
  try {
    await content.abort({ ...ctx, signal: undefined }, ref);
  } catch (error) {
    if (!hasCode(error, Code.NotFound)) throw error;
  }
}

/** Waits while another transfer, or a client, holds the ref; it may well bring the same blob. */
async function openWriter(ctx: RequestContext, content: ContentStore, descriptor: Descriptor): Promise<ContentWriter> {
  const options = { ref: refKey(descriptor), size: descriptor.size, expected: descriptor.digest };
  const whole = await content.wholeWriter?.(ctx, options);
  if (whole) return whole;
  for (let wait = 16; ; wait = Math.min(wait * 2, 1000)) {
    try {
      return await content.writer(ctx, options);
    } catch (error) {
      if (!hasCode(error, Code.Unavailable) || error instanceof BackendAway) throw error;
      await sleep(wait, undefined, { ...(ctx.signal && { signal: ctx.signal }) });
    }
  }
}

async function copy(
  ctx: RequestContext,
  request: FetchRequest,
  writer: ContentWriter,
  growing?: GrowingFile,
): Promise<void> {
  const { descriptor, onProgress } = request;
  if (writer.status().offset > descriptor.size) await writer.truncate(0);
  let offset = writer.status().offset;
  if (offset > 0) onProgress(offset);
  const batches = new BatchedWrites(writer, descriptor.size - offset, (bytes) => {
    offset += bytes;
    growing?.grow(offset);
    onProgress(offset);
  });
  try {
    for await (const chunk of request.open(offset, ctx.signal)) {
      await batches.add(chunk);
      letGo(chunk);
    }
  } finally {
    // Also when the connection broke for good: what came is kept for the next attempt.
    await batches.finish();
  }
}
