import type { Any } from '@bufbuild/protobuf/wkt';
import { isAny, unpackAny } from '@gantry/api';
import { LayerStreamSchema, SnapshotSchema } from '@gantry/api/gen/gantry/transfer/v1/transfer_pb.js';
import type { RequestContext } from '../../core/request-context.ts';
import { ByteSender, receiveBytes } from '../../core/streaming/byte-stream.ts';
import type { StreamManager } from '../../core/streaming/stream-manager.ts';

/** Single layers and snapshots as sources and destinations: `gantry.transfer.v1`. */

export interface LayerStreamEndpoint {
  kind: 'layer';
  /** The bytes the client sends, as a source. */
  receive(): AsyncIterable<Uint8Array>;
  /** Takes bytes to the client, as a destination. */
  sender(): ByteSender;
  /** Ends the stream; nothing more is wanted, or comes. */
  close(): void;
  mediaType: string;
  /** '' if not told. */
  digest: string;
  /** 0 if not told. */
  size: number;
  labels: Record<string, string>;
  /** Seconds since 1970. */
  sourceDateEpoch: bigint | undefined;
}

export interface SnapshotEndpoint {
  kind: 'snapshot';
  snapshotter: string;
  key: string;
  parent: string;
  labels: Record<string, string>;
  diffId: string;
}

/** undefined for any other message. */
export function readLayerEndpoint(
  any: Any,
  { ctx, streams }: { ctx: RequestContext; streams: StreamManager },
): LayerStreamEndpoint | SnapshotEndpoint | undefined {
  if (isAny(any, SnapshotSchema)) {
    const { snapshotter, key, parent, labels, diffId } = unpackAny(SnapshotSchema, any);
    return { kind: 'snapshot', snapshotter, key, parent, labels: { ...labels }, diffId };
  }
  if (!isAny(any, LayerStreamSchema)) return undefined;
  const message = unpackAny(LayerStreamSchema, any);
  const stream = streams.get(ctx, message.stream);
  return {
    kind: 'layer',
    receive: () => receiveBytes(stream, ctx.signal),
    sender: () => new ByteSender(stream, ctx.signal),
    close: () => stream.close(),
    mediaType: message.mediaType,
    digest: message.digest,
    size: Number(message.size),
    labels: { ...message.labels },
    sourceDateEpoch: message.sourceDateEpoch?.seconds,
  };
}
