import type { MessageInitShape } from '@bufbuild/protobuf';
import { alreadyExists, Code, hasCode, invalidArgument, outOfRange, StatusError, toTimestamp } from '@gantry/api';
import {
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponseSchema,
} from '@gantry/api/gen/services/content/v1/content_pb.js';
import type { ContentStore, ContentWriter } from '../core/content/content-store.ts';
import type { RequestContext } from '../core/request-context.ts';

type Response = MessageInitShape<typeof WriteContentResponseSchema>;

/**
 * One Content.Write call: the first message names the ref and locks it for as long as the call lasts; every message is
 * answered with the offset, and with the digest so far, which clients build their commit on. A commit ends the call.
 */
export async function* writeContent(
  store: ContentStore,
  ctx: RequestContext,
  requests: AsyncIterable<WriteContentRequest>,
): AsyncIterable<Response> {
  const session: Session = { store, ctx, ref: '', total: 0, expected: '' };
  let writer: ContentWriter | undefined;
  try {
    for await (const request of requests) {
      if (!writer) {
        if (!request.ref) throw invalidArgument('first message must have a reference');
        session.ref = request.ref;
        session.total = Number(request.total);
        session.expected = request.expected;
        writer = await store.writer(ctx, {
          ref: request.ref,
          ...(session.total > 0 && { size: session.total }),
          ...(session.expected && { expected: session.expected }),
        });
      }
      yield await answer(session, writer, request);
      if (request.action === WriteAction.COMMIT) return;
    }
  } finally {
    await writer?.close();
  }
}

interface Session {
  store: ContentStore;
  ctx: RequestContext;
  ref: string;
  /** The newest expectations the client told. */
  total: number;
  expected: string;
}

async function answer(session: Session, writer: ContentWriter, request: WriteContentRequest): Promise<Response> {
  if (request.expected) {
    session.expected = request.expected;
    await refuseIfThere(session);
  }
  if (request.total > 0n) session.total = Number(request.total);
  const { action } = request;
  if (action === WriteAction.STAT) {
    const status = writer.status();
    return {
      action,
      offset: BigInt(status.offset),
      total: BigInt(session.total),
      digest: await writer.digest(),
      startedAt: toTimestamp(status.startedAt),
      updatedAt: toTimestamp(status.updatedAt),
    };
  }
  if (action !== WriteAction.WRITE && action !== WriteAction.COMMIT) {
    throw invalidArgument(`unknown write action ${action}`);
  }
  const before = writer.status().offset;
  const offset = Number(request.offset);
  if (offset > 0 && offset !== before) {
    throw outOfRange(`write @${offset} must occur at current offset ${before}`);
  }
  if (offset === 0 && before > 0) await startOver(writer);
  const start = writer.status().offset;
  if (request.data.length > 0) await writer.write(request.data);
  const end = writer.status().offset;
  if (end !== start + request.data.length)
    throw new StatusError(Code.DataLoss, `wrote ${end - start} of ${request.data.length} bytes`);
  let digest: string;
  if (action === WriteAction.COMMIT) {
    const labels = { ...request.labels };
    const done = await writer.commit({
      ...(session.total > 0 && { size: session.total }),
      ...(session.expected && { expected: session.expected }),
      ...(Object.keys(labels).length > 0 && { labels }),
    });
    digest = done.digest;
  } else {
    digest = await writer.digest();
  }
  return { action, offset: BigInt(end), digest, ...(session.total > 0 && { total: BigInt(session.total) }) };
}

/** A blob that is there already needs no bytes: the ingest is dropped and the client told. */
async function refuseIfThere({ store, ctx, ref, expected }: Session): Promise<void> {
  try {
    await store.info(ctx, expected);
  } catch (reason) {
    if (hasCode(reason, Code.NotFound)) return;
    throw reason;
  }
  try {
    await store.abort(ctx, ref);
  } catch (reason) {
    if (!hasCode(reason, Code.NotFound)) throw reason;
  }
  throw alreadyExists(`blob with expected digest ${expected} exists`);
}

async function startOver(writer: ContentWriter): Promise<void> {
  try {
    await writer.truncate(0);
  } catch (reason) {
    throw StatusError.wrap(reason, 'truncate failed');
  }
}
