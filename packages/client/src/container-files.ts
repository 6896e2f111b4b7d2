// Files into and out of a container, done by its shim: containerd's messages, which its own daemon (2.3) does not pass on yet.
import { packAny, StatusError } from '@gantry/api';
import { ContainerPathSchema } from '@gantry/api/gen/types/transfer/container_pb.js';
import { ReadStreamSchema, WriteStreamSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import type { CallOptions, Transport } from '@gantry/rpc';
import { NamedStream, receiveMoved, sendBytes, streamId } from './streams.ts';
import type { DoTransfer } from './transfer-layers.ts';

const mediaType = 'application/x-tar';

export interface CopyFromContainerOptions extends CallOptions {
  /** Of a directory only itself: to learn what a path is. */
  noWalk?: boolean;
}

export interface CopyToContainerOptions extends CallOptions {
  /** Give files the owners that the archive says. Default: root, as the container has it. */
  preserveOwnership?: boolean;
}

export async function* copyFromContainer(
  transport: Transport,
  transfer: DoTransfer,
  containerId: string,
  path: string,
  options: CopyFromContainerOptions & { call: CallOptions },
): AsyncGenerator<Uint8Array> {
  const abort = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
  await using stream = await NamedStream.open(transport, streamId('copy'), { ...options.call, signal });
  yield* receiveMoved(
    stream,
    abort,
    transfer(
      packAny(ContainerPathSchema, { containerId, path, noWalk: options.noWalk ?? false }),
      packAny(WriteStreamSchema, { stream: stream.id, mediaType }),
      { ...options.call, signal },
    ),
  );
}

export async function copyToContainer(
  transport: Transport,
  transfer: DoTransfer,
  containerId: string,
  path: string,
  archive: AsyncIterable<Uint8Array>,
  options: CopyToContainerOptions & { call: CallOptions },
): Promise<void> {
  const abort = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
  await using stream = await NamedStream.open(transport, streamId('copy'), { ...options.call, signal });
  let fault: unknown;
  void sendBytes(stream, archive).catch((reason) => {
    // An archive that cannot be read ends the transfer with its own error.
    fault ??= reason;
    abort.abort(StatusError.from(reason));
  });
  try {
    await transfer(
      packAny(ReadStreamSchema, { stream: stream.id, mediaType }),
      packAny(ContainerPathSchema, { containerId, path, preserveOwnership: options.preserveOwnership ?? false }),
      { ...options.call, signal },
    );
  } catch (reason) {
    throw abort.signal.aborted ? fault : reason;
  }
}
