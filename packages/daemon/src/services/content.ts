import type { MessageInitShape } from '@bufbuild/protobuf';
import { invalidArgument, outOfRange, toTimestamp } from '@gantry/api';
import {
  Content,
  type InfoSchema,
  type ReadContentRequest,
  type ReadContentResponseSchema,
  type StatusSchema,
} from '@gantry/api/gen/services/content/v1/content_pb.js';
import { BufferPool, borrowsRequests, type CallContext, type Implementation } from '@gantry/rpc';
import type { ContentInfo, ContentStore, IngestStatus } from '../core/content/content-store.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import { inBatches } from './batches.ts';
import { writeContent } from './content-write.ts';
import { requestContext } from './request-context.ts';

/** Bytes in one message of Read: what containerd sends, and well below every client's limit. */
const readSize = 1024 * 1024;
const pool = new BufferPool(readSize, 4);

/** `io.containerd.grpc.v1.content`: containerd.services.content.v1.Content. */
export const contentGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'content',
  requires: [PluginTypes.Metadata],
  init(context): ServiceSet {
    const { content } = context.get(PluginTypes.Metadata);
    return { register: (grpc) => grpc.add(Content, contentService(content)) };
  },
});

/** The Content service over a namespaced store. */
export function contentService(store: ContentStore): Implementation<typeof Content> {
  return {
    async info(request, call) {
      checkDigest(request.digest);
      return { info: wireInfo(await store.info(requestContext(call), request.digest)) };
    },
    async update(request, call) {
      const { info, updateMask } = request;
      if (!info) throw invalidArgument('info must be given');
      checkDigest(info.digest);
      const updated = await store.update(
        requestContext(call),
        { digest: info.digest, labels: { ...info.labels } },
        updateMask?.paths ?? [],
      );
      return { info: wireInfo(updated) };
    },
    async *list(request, call) {
      for await (const batch of inBatches(store.list(requestContext(call), request.filters), 100)) {
        yield { info: batch.map(wireInfo) };
      }
    },
    async delete(request, call) {
      checkDigest(request.digest);
      await store.delete(requestContext(call), request.digest);
      return {};
    },
    read: (request, call) => readContent(store, call, request),
    async status(request, call) {
      return { status: wireStatus(await store.status(requestContext(call), request.ref)) };
    },
    async listStatuses(request, call) {
      return { statuses: (await store.listStatuses(requestContext(call), request.filters)).map(wireStatus) };
    },
    write: borrowsRequests((requests, call) => writeContent(store, requestContext(call), requests)),
    async abort(request, call) {
      await store.abort(requestContext(call), request.ref);
      return {};
    },
  };
}

async function* readContent(
  store: ContentStore,
  call: CallContext,
  request: ReadContentRequest,
): AsyncIterable<MessageInitShape<typeof ReadContentResponseSchema>> {
  checkDigest(request.digest);
  await using reader = await store.reader(requestContext(call), request.digest);
  const start = Math.max(0, Number(request.offset));
  if (start > reader.size) throw outOfRange(`read past object length ${reader.size} bytes`);
  const wanted = Number(request.size);
  const end = wanted <= 0 || start + wanted > reader.size ? reader.size : start + wanted;
  // Two buffers take turns: one is being filled while the other is on its way.
  const buffers = end - start > readSize ? ([pool.take(), pool.take()] as const) : undefined;
  let turn = 0;
  const chunkAt = (offset: number) => {
    turn = 1 - turn;
    return reader.read(offset, Math.min(readSize, end - offset), buffers?.[turn]);
  };
  let next = start < end ? chunkAt(start) : undefined;
  try {
    for (let offset = start; next; ) {
      const data: Uint8Array = await next;
      if (data.length === 0) throw outOfRange(`${request.digest} ends at ${offset}, expected ${end} bytes`);
      const after = offset + data.length;
      await call.flushed();
      next = after < end ? chunkAt(after) : undefined;
      yield { offset: BigInt(offset), data };
      offset = after;
    }
    if (!buffers) return;
    // Only here is nobody using them any more; after an error they are left to the garbage collector.
    await call.flushed();
    for (const buffer of buffers) pool.give(buffer);
  } finally {
    // A client that leaves early leaves one read behind; the file may only be closed after it.
    await next?.catch(() => {});
  }
}

function checkDigest(digest: string): void {
  if (!/^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$/.test(digest)) {
    throw invalidArgument(`${JSON.stringify(digest)} failed validation`);
  }
}

function wireInfo(info: ContentInfo): MessageInitShape<typeof InfoSchema> {
  return {
    digest: info.digest,
    size: BigInt(info.size),
    createdAt: toTimestamp(info.createdAt),
    updatedAt: toTimestamp(info.updatedAt),
    labels: info.labels,
  };
}

function wireStatus(status: IngestStatus): MessageInitShape<typeof StatusSchema> {
  return {
    ref: status.ref,
    offset: BigInt(status.offset),
    total: BigInt(status.total),
    expected: status.expected,
    startedAt: toTimestamp(status.startedAt),
    updatedAt: toTimestamp(status.updatedAt),
  };
}
