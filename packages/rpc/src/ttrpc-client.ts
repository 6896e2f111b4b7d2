import net from 'node:net';
import type { Duplex } from 'node:stream';
import { create, type DescMethod, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { Code, deadlineExceeded, internal, resourceExhausted, StatusError, unavailable } from '@gantry/api';
import { type KeyValueSchema, RequestSchema, type Response, ResponseSchema } from '@gantry/api/gen/ttrpc/request_pb.js';
import { abortError } from './abort-error.ts';
import { leaseHeader, ttrpcNamespaceHeader } from './headers.ts';
import { MessageQueue } from './message-queue.ts';
import type { CallOptions, Transport } from './service.ts';
import { type Frame, FrameFlag, FrameReader, FrameType, FrameWriter, maxFrameData } from './ttrpc-frames.ts';
import { ReceiveWindow } from './ttrpc-window.ts';
import { socketPath } from './unix-listener.ts';

export interface TtrpcTransportOptions {
  /** Namespace of calls that name none. */
  namespace?: string;
}

/** One ttrpc connection. It is not made again when it breaks: calls then fail with Unavailable. */
export interface TtrpcTransport extends Transport {
  readonly closed: boolean;
  /** Resolves when connected. @throws StatusError Unavailable */
  ready(): Promise<void>;
  /** Calls back once when the connection is closed (at once if it is), with the error if it did not close by itself. */
  onClose(listener: (error: Error | undefined) => void): void;
}

/**
 * A transport over a connection, or to a unix socket: a path, `unix:///path`, or an abstract name with a leading NUL or `@`.
 */
export function ttrpcTransport(connection: string | Duplex, options: TtrpcTransportOptions = {}): TtrpcTransport {
  return new ClientConnection(
    typeof connection === 'string' ? net.connect({ path: socketPath(connection) }) : connection,
    options.namespace,
  );
}

/** What a call does with the frames of its stream. */
interface Pending {
  receive(frame: Frame, stream: OpenStream): void;
  fail(reason: StatusError): void;
}

interface OpenStream {
  readonly id: number;
  receive(frame: Frame): void;
  fail(reason: StatusError): void;
  /** Forgets the stream; what the server still sends on it is dropped. */
  release(): void;
}

const lastStreamId = 0xffffffff;
const noBytes = new Uint8Array(0);

class ClientConnection implements TtrpcTransport {
  readonly system = 'ttrpc';
  readonly #socket: Duplex;
  readonly #namespace: string | undefined;
  readonly #writer: FrameWriter;
  readonly #window: ReceiveWindow;
  readonly #streams = new Map<number, OpenStream>();
  readonly #listeners: ((error: Error | undefined) => void)[] = [];
  #nextStreamId = 1;
  #closed = false;
  #error: Error | undefined;

  constructor(socket: Duplex, namespace: string | undefined) {
    this.#socket = socket;
    this.#namespace = namespace;
    this.#writer = new FrameWriter(socket);
    this.#window = new ReceiveWindow(socket);
    const reader = new FrameReader(
      (frame) => this.#streams.get(frame.streamId)?.receive(frame),
      (streamId, length) => this.#streams.get(streamId)?.fail(tooLong(length)),
    );
    socket.on('data', (chunk: Buffer) => reader.write(chunk));
    socket.on('end', () => socket.destroy());
    socket.on('error', (error: Error) => {
      this.#error = error;
    });
    socket.once('close', () => this.#onClosed());
  }

  get closed(): boolean {
    return this.#closed;
  }

  ready(): Promise<void> {
    const socket = this.#socket;
    if (this.#closed) return Promise.reject(this.#closedError());
    if (!(socket instanceof net.Socket) || !socket.connecting) return Promise.resolve();
    return new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      this.onClose(() => reject(this.#closedError()));
    });
  }

  onClose(listener: (error: Error | undefined) => void): void {
    if (this.#closed) listener(this.#error);
    else this.#listeners.push(listener);
  }

  unary(method: DescMethod, request: Uint8Array, options: CallOptions): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#open(method, request, 0, options, {
        receive: (frame, stream) => {
          stream.release();
          if (frame.type !== FrameType.Response) {
            reject(internal(`ttrpc: frame of type ${frame.type} in answer to a unary request`));
            return;
          }
          try {
            resolve(readResponse(frame).payload);
          } catch (reason) {
            reject(reason);
          }
        },
        fail: reject,
      });
    });
  }

  stream(method: DescMethod, requests: AsyncIterable<Uint8Array>, options: CallOptions): AsyncIterable<Uint8Array> {
    const answers = new MessageQueue<Uint8Array>();
    answers.onTake = (message) => this.#window.take(message.byteLength);
    const sending = requests[Symbol.asyncIterator]();
    const manyRequests = method.methodKind !== 'server_streaming';
    let stream: OpenStream | undefined;
    let over = false;
    let halfClosed = !manyRequests;
    const halfClose = () => {
      if (halfClosed || !stream) return;
      halfClosed = true;
      void this.#writer.write(stream.id, FrameType.Data, FrameFlag.RemoteClosed | FrameFlag.NoData, noBytes);
    };
    const finish = () => {
      if (over) return;
      over = true;
      stream?.release();
      sending.return?.().catch(() => {}); // The requests are not wanted any more, nor is what they say to that.
    };
    const abandon = () => {
      if (!over) halfClose();
      finish();
    };
    const push = (message: Uint8Array) => {
      if (answers.ended) return;
      this.#window.add(message.byteLength);
      answers.push(message);
    };
    answers.onReturn = abandon;
    const pending: Pending = {
      fail: (reason) => {
        answers.fail(reason);
        abandon();
      },
      receive: (frame) => {
        if (frame.type === FrameType.Data) {
          if ((frame.flags & FrameFlag.NoData) === 0) push(frame.data);
          if ((frame.flags & FrameFlag.RemoteClosed) === 0) return;
          answers.end();
        } else if (frame.type === FrameType.Response) {
          try {
            const { payload } = readResponse(frame);
            if (payload.byteLength > 0 || method.methodKind === 'client_streaming') push(payload);
            answers.end();
          } catch (reason) {
            answers.fail(reason);
          }
        } else return;
        finish();
      },
    };
    const send = async () => {
      while (!over) {
        const { done, value } = await sending.next();
        if (over) return;
        if (done) {
          halfClose();
          return;
        }
        if (!manyRequests) {
          stream = this.#open(method, value, FrameFlag.RemoteClosed, options, pending);
          return;
        }
        if (value.byteLength > maxFrameData) throw tooLong(value.byteLength);
        const drained = this.#writer.write(stream!.id, FrameType.Data, 0, value);
        if (drained) await drained;
      }
    };
    if (manyRequests) stream = this.#open(method, noBytes, FrameFlag.RemoteOpen, options, pending);
    send().catch((reason) => pending.fail(StatusError.from(reason)));
    return answers;
  }

  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      this.onClose(() => resolve());
      this.#socket.end(() => this.#socket.destroy());
    });
  }

  /** Sends a request. Failures, now or later, go to `pending.fail`, once; `undefined` if it failed at once. */
  #open(
    method: DescMethod,
    payload: Uint8Array,
    flags: number,
    options: CallOptions,
    pending: Pending,
  ): OpenStream | undefined {
    const { signal, timeoutMs } = options;
    if (signal?.aborted) return void pending.fail(abortError(signal));
    if (this.#closed || this.#nextStreamId > lastStreamId) return void pending.fail(this.#closedError());
    if (timeoutMs !== undefined && timeoutMs <= 0)
      return void pending.fail(deadlineExceeded('context deadline exceeded'));
    const request = toBinary(
      RequestSchema,
      create(RequestSchema, {
        service: method.parent.typeName,
        method: method.name,
        payload,
        timeoutNano: timeoutMs === undefined ? 0n : BigInt(Math.round(timeoutMs * 1e6)),
        metadata: this.#metadata(options),
      }),
    );
    if (request.byteLength > maxFrameData) return void pending.fail(tooLong(request.byteLength));
    const id = this.#nextStreamId;
    this.#nextStreamId += 2;
    let timer: NodeJS.Timeout | undefined;
    const fail = (reason: StatusError) => {
      stream.release();
      pending.fail(reason);
    };
    const abort = () => fail(abortError(signal!));
    const stream: OpenStream = {
      id,
      receive: (frame) => pending.receive(frame, stream),
      fail,
      release: () => {
        this.#streams.delete(id);
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
      },
    };
    if (timeoutMs !== undefined && timeoutMs < 2 ** 31)
      timer = setTimeout(() => fail(deadlineExceeded('context deadline exceeded')), timeoutMs);
    signal?.addEventListener('abort', abort);
    this.#streams.set(id, stream);
    void this.#writer.write(id, FrameType.Request, flags, request);
    return stream;
  }

  #metadata(options: CallOptions): MessageInitShape<typeof KeyValueSchema>[] {
    const metadata: { key: string; value: string }[] = [];
    const namespace = options.namespace ?? this.#namespace;
    if (namespace !== undefined) metadata.push({ key: ttrpcNamespaceHeader, value: namespace });
    if (options.lease !== undefined) metadata.push({ key: leaseHeader, value: options.lease });
    if (options.metadata)
      for (const [name, value] of Object.entries(options.metadata)) metadata.push({ key: name.toLowerCase(), value });
    return metadata;
  }

  #closedError(): StatusError {
    return this.#error
      ? unavailable(`ttrpc: closed: ${this.#error.message}`, this.#error)
      : unavailable('ttrpc: closed');
  }

  #onClosed(): void {
    this.#closed = true;
    const reason = this.#closedError();
    for (const stream of [...this.#streams.values()]) stream.fail(reason);
    for (const listener of this.#listeners.splice(0)) listener(this.#error);
  }
}

function readResponse(frame: Frame): Response {
  let response: Response;
  try {
    response = fromBinary(ResponseSchema, frame.data);
  } catch (cause) {
    throw internal(`ttrpc: unmarshal response error: ${(cause as Error).message}`, cause);
  }
  const { status } = response;
  if (!status || status.code === Code.Ok) return response;
  const code = Object.values(Code).includes(status.code as Code) ? (status.code as Code) : Code.Unknown;
  throw new StatusError(code, status.message, { details: status.details });
}

function tooLong(length: number): StatusError {
  return resourceExhausted(`message length ${length} exceed maximum message size of ${maxFrameData}`);
}
