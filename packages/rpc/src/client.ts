import { type DescMessage, type DescMethod, type DescService, fromBinary } from '@bufbuild/protobuf';
import { internal } from '@gantry/api';
import { encodeMessage, joined } from './message-encoding.ts';
import type { CallOptions, Client, Transport } from './service.ts';
import { beginCall, endCall } from './trace-calls.ts';

const noOptions: CallOptions = {};

/**
 * A typed client of a service over gRPC or ttrpc. A call that streams answers starts at once, before its result is
 * iterated; whoever does not iterate it must abort it.
 */
export function createClient<S extends DescService>(service: S, transport: Transport): Client<S> {
  const client: Record<string, unknown> = {};
  for (const method of service.methods) client[method.localName] = clientMethod(method, transport);
  return client as Client<S>;
}

function clientMethod(method: DescMethod, transport: Transport): unknown {
  const encode = (message: unknown) => encodeMessage(method.input, message, joined);
  const decode = (bytes: Uint8Array) => decodeMessage(method.output, bytes);
  switch (method.methodKind) {
    case 'unary':
      return async (request: unknown, options = noOptions) =>
        decode(await unary(transport, method, encode(request), options));
    case 'server_streaming':
      return (request: unknown, options = noOptions) =>
        mapped(stream(transport, method, once(encode(request)), options), decode);
    case 'client_streaming':
      return async (requests: AsyncIterable<unknown>, options = noOptions) => {
        let answer: Uint8Array | undefined;
        for await (const bytes of stream(transport, method, mapped(requests, encode), options)) answer = bytes;
        if (!answer) throw internal(`${method.parent.typeName}/${method.name} ended without an answer`);
        return decode(answer);
      };
    default:
      return (requests: AsyncIterable<unknown>, options = noOptions) =>
        mapped(stream(transport, method, mapped(requests, encode), options), decode);
  }
}

async function unary(
  transport: Transport,
  method: DescMethod,
  request: Uint8Array,
  options: CallOptions,
): Promise<Uint8Array> {
  const call = beginCall(transport.system ?? 'grpc', method, options);
  if (!call) return await transport.unary(method, request, options);
  try {
    const answer = await transport.unary(method, request, call.options);
    endCall(call);
    return answer;
  } catch (reason) {
    endCall(call, reason);
    throw reason;
  }
}

function stream(
  transport: Transport,
  method: DescMethod,
  requests: AsyncIterable<Uint8Array>,
  options: CallOptions,
): AsyncIterable<Uint8Array> {
  const call = beginCall(transport.system ?? 'grpc', method, options);
  if (!call) return transport.stream(method, requests, options);
  const inner = transport.stream(method, requests, call.options)[Symbol.asyncIterator]();
  const iterator: AsyncIterableIterator<Uint8Array> = {
    next: async () => {
      try {
        const result = await inner.next();
        if (result.done) endCall(call);
        return result;
      } catch (reason) {
        endCall(call, reason);
        throw reason;
      }
    },
    return: async () => {
      endCall(call);
      return (await inner.return?.()) ?? { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}

function decodeMessage(schema: DescMessage, bytes: Uint8Array): unknown {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw internal(`failed to unmarshal the received message: ${(cause as Error).message}`, cause);
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** An async iterable seen through a function, with `return` passed on. */
function mapped<A, B>(source: AsyncIterable<A>, map: (value: A) => B): AsyncIterableIterator<B> {
  const inner = source[Symbol.asyncIterator]();
  const iterator: AsyncIterableIterator<B> = {
    next: async () => {
      const result = await inner.next();
      if (result.done) return { done: true, value: undefined };
      try {
        return { done: false, value: map(result.value) };
      } catch (reason) {
        await inner.return?.();
        throw reason;
      }
    },
    return: async () => {
      await inner.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}
