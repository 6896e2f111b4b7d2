// Single layers on the move: messages of Gantry's own (`gantry.transfer.v1`), which containerd does not know (`type with url … not found`).
import type { Any } from '@bufbuild/protobuf/wkt';
import { internal, packAny, StatusError } from '@gantry/api';
import { LayerStreamSchema, SnapshotSchema } from '@gantry/api/gen/gantry/transfer/v1/transfer_pb.js';
import type { Descriptor } from '@gantry/oci';
import type { CallOptions, Transport } from '@gantry/rpc';
import { NamedStream, receiveMoved, sendBytes, streamId } from './streams.ts';
import type { TransferOptions, TransferProgress } from './transfer.ts';

export interface UnpackLayerOptions extends TransferOptions {
  /** Default: the daemon's default. */
  snapshotter?: string;
  /** The committed snapshot below. Default: none. */
  parent?: string;
  /** The name of the snapshot. Default: its chain id. */
  key?: string;
  /** Of the snapshot. */
  labels?: Record<string, string>;
  /** What the layer has to be: a daemon that has the snapshot then reads nothing, one that has the blob does not read it again. */
  diffId?: string;
  digest?: string;
  /** Bytes. */
  size?: number;
  /** Default: found out from the first bytes. */
  mediaType?: string;
  /** Of the blob in the content store. */
  layerLabels?: Record<string, string>;
}

export interface UnpackedLayer {
  /** The name of the snapshot. */
  readonly snapshot: string;
  /** The blob, its diff id the annotation `containerd.io/uncompressed`; undefined if the snapshot was there already. */
  readonly layer: Descriptor | undefined;
}

export interface DiffSnapshotOptions extends TransferOptions {
  snapshotter?: string;
  /** What to compare with. Default: the snapshot's own parent. */
  parent?: string;
  /** Default: gzip'd OCI layer. */
  mediaType?: string;
  /** Of the blob in the content store. */
  layerLabels?: Record<string, string>;
  /** Seconds since 1970 that no entry's time is later than. */
  sourceDateEpoch?: number;
}

/** A layer that is being made: its bytes, and what they were. */
export interface SnapshotDiff extends AsyncIterable<Uint8Array> {
  /** Settles when all bytes have been taken; its diff id is the annotation `containerd.io/uncompressed`. */
  readonly layer: Promise<Descriptor>;
}

/** Has the daemon do a transfer. */
export type DoTransfer = (source: Any, destination: Any, options: TransferOptions) => Promise<void>;

/** Passes progress on, and keeps the event that tells the outcome. */
function outcomeOf(event: string, options: TransferOptions) {
  let found: TransferProgress | undefined;
  return {
    options: {
      ...options,
      onProgress: (progress: TransferProgress) => {
        if (progress.event === event) found = progress;
        options.onProgress?.(progress);
      },
    },
    get found(): TransferProgress {
      if (!found) throw internal(`the daemon did not tell what was ${event}`);
      return found;
    },
  };
}

export async function unpackLayer(
  transport: Transport,
  transfer: DoTransfer,
  layer: AsyncIterable<Uint8Array>,
  options: UnpackLayerOptions & { call: CallOptions },
): Promise<UnpackedLayer> {
  const { snapshotter = '', parent = '', key = '', labels = {}, diffId = '' } = options;
  const { digest = '', size = 0, mediaType = '', layerLabels = {} } = options;
  const abort = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
  await using stream = await NamedStream.open(transport, streamId('layer'), { ...options.call, signal });
  const source = { stream: stream.id, mediaType, digest, size: BigInt(size), labels: layerLabels };
  const outcome = outcomeOf('unpacked', options);
  let fault: unknown;
  void sendBytes(stream, layer).catch((reason) => {
    fault ??= reason;
    abort.abort(StatusError.from(reason));
  });
  try {
    await transfer(
      packAny(LayerStreamSchema, source),
      packAny(SnapshotSchema, { snapshotter, key, parent, labels, diffId }),
      { ...outcome.options, signal },
    );
  } catch (reason) {
    throw abort.signal.aborted ? fault : reason;
  }
  const { name, descriptor } = outcome.found;
  return { snapshot: name, layer: descriptor };
}

export function diffSnapshot(
  transport: Transport,
  transfer: DoTransfer,
  key: string,
  options: DiffSnapshotOptions & { call: CallOptions },
): SnapshotDiff {
  const { promise: layer, resolve, reject } = Promise.withResolvers<Descriptor>();
  // Who only takes the bytes gets the failure with them.
  layer.catch(() => undefined);
  async function* bytes(): AsyncGenerator<Uint8Array> {
    const { snapshotter = '', parent = '', mediaType = '', layerLabels = {}, sourceDateEpoch } = options;
    const abort = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
    await using stream = await NamedStream.open(transport, streamId('layer'), { ...options.call, signal });
    const destination = packAny(LayerStreamSchema, {
      stream: stream.id,
      mediaType,
      labels: layerLabels,
      ...(sourceDateEpoch !== undefined && { sourceDateEpoch: { seconds: BigInt(sourceDateEpoch), nanos: 0 } }),
    });
    const outcome = outcomeOf('compared', options);
    yield* receiveMoved(
      stream,
      abort,
      transfer(packAny(SnapshotSchema, { snapshotter, key, parent }), destination, {
        ...outcome.options,
        signal,
      }),
    );
    const { descriptor } = outcome.found;
    if (!descriptor) throw internal('the daemon did not tell what the layer is');
    resolve(descriptor);
  }
  async function* told(): AsyncGenerator<Uint8Array> {
    try {
      yield* bytes();
    } catch (reason) {
      reject(reason);
      throw reason;
    } finally {
      reject(internal('the layer was not taken to its end'));
    }
  }
  return { layer, [Symbol.asyncIterator]: told };
}
