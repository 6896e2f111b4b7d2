import type { Any } from '@bufbuild/protobuf/wkt';
import { internal, isAny, packAny, StatusError, unimplemented, unpackAny } from '@gantry/api';
import { StreamInitSchema, Streaming } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';
import { Transfer } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { ContainerPathSchema } from '@gantry/api/gen/types/transfer/container_pb.js';
import { ReadStreamSchema, WriteStreamSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import { type CallOptions, MessageQueue } from '@gantry/rpc';
import type { RequestContext } from '../../core/request-context.ts';
import type { MessageStream, StreamManager } from '../../core/streaming/stream-manager.ts';
import type { Transferrer } from '../../core/transfer/transferrer.ts';
import type { ShimConnection } from '../runtime-v2/shim-connection.ts';

/** Finds the shim of a container's task. @throws StatusError NotFound */
export type ShimOfTask = (ctx: RequestContext, id: string) => Promise<ShimConnection>;

/**
 * Files into and out of containers, which their shims do: the client's stream is passed on to a stream of the shim's, message by message, so
 * that the two ends pace each other.
 */
export class ContainerTransfer implements Transferrer {
  readonly #streams: StreamManager;
  readonly #shimOf: ShimOfTask;

  constructor(streams: StreamManager, shimOf: ShimOfTask) {
    this.#streams = streams;
    this.#shimOf = shimOf;
  }

  async transfer(ctx: RequestContext, source: Any, destination: Any): Promise<void> {
    const ends = readEnds(source, destination);
    if (!ends) throw unimplemented('not a transfer between a container and a stream');
    const client = this.#streams.get(ctx, ends.stream);
    try {
      const connection = await this.#shimOf(ctx, ends.container);
      await this.#relay(ctx, connection, client, ends.stream, { source, destination });
    } finally {
      client.close();
    }
  }

  async #relay(
    ctx: RequestContext,
    connection: ShimConnection,
    client: MessageStream,
    name: string,
    request: { source: Any; destination: Any },
  ): Promise<void> {
    const abort = new AbortController();
    const signal = ctx.signal ? AbortSignal.any([ctx.signal, abort.signal]) : abort.signal;
    const options: CallOptions = { namespace: ctx.namespace, signal };
    const out = new MessageQueue<Any>();
    out.push(packAny(StreamInitSchema, { id: name }));
    const incoming = connection.client(Streaming).stream(out, options)[Symbol.asyncIterator]();
    try {
      if ((await incoming.next()).done) throw internal(`the shim closed stream ${name} at once`);
      void passOn(client, out);
      const answered = passBack(incoming, client);
      await connection.client(Transfer).transfer(request, options);
      // What the shim sent last may still be on its way.
      await answered;
    } catch (error) {
      throw StatusError.wrap(error, 'shim transfer');
    } finally {
      out.end();
      abort.abort();
    }
  }
}

async function passOn(client: MessageStream, out: MessageQueue<Any>): Promise<void> {
  try {
    for (let message = await client.receive(); message; message = await client.receive()) out.push(message);
  } catch {
    // The client has gone: so does the stream.
  }
  out.end();
}

async function passBack(incoming: AsyncIterator<Any>, client: MessageStream): Promise<void> {
  try {
    for (let next = await incoming.next(); !next.done; next = await incoming.next()) client.send(next.value);
  } catch {
    // The transfer itself tells what went wrong.
  }
}

function readEnds(source: Any, destination: Any): { container: string; stream: string } | undefined {
  if (isAny(source, ContainerPathSchema) && isAny(destination, WriteStreamSchema))
    return {
      container: unpackAny(ContainerPathSchema, source).containerId,
      stream: unpackAny(WriteStreamSchema, destination).stream,
    };
  if (isAny(source, ReadStreamSchema) && isAny(destination, ContainerPathSchema))
    return {
      container: unpackAny(ContainerPathSchema, destination).containerId,
      stream: unpackAny(ReadStreamSchema, source).stream,
    };
  return undefined;
}
