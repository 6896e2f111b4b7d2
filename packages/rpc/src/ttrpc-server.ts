import net from 'node:net';
import type { Duplex } from 'node:stream';
import { create, type DescService, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  Code,
  canceled,
  deadlineExceeded,
  invalidArgument,
  resourceExhausted,
  StatusError,
  unavailable,
} from '@gantry/api';
import { type Request, RequestSchema, ResponseSchema } from '@gantry/api/gen/ttrpc/request_pb.js';
import { type BoundMethod, Dispatcher, type Responder } from './dispatcher.ts';
import { leaseHeader, ttrpcNamespaceHeader } from './headers.ts';
import { joined } from './message-encoding.ts';
import { MessageQueue } from './message-queue.ts';
import { ServerCall, type ServerOptions } from './server-call.ts';
import type { Implementation, Metadata, ServiceRegistrar } from './service.ts';
import { type Frame, FrameFlag, FrameReader, FrameType, FrameWriter, maxFrameData } from './ttrpc-frames.ts';
import { ReceiveWindow } from './ttrpc-window.ts';
import { listenUnix, type SocketPermissions, type UnixAddress } from './unix-listener.ts';

/** A ttrpc server for any number of listeners and connections. */
export class TtrpcServer implements ServiceRegistrar {
  readonly #dispatcher: Dispatcher;
  readonly #options: ServerOptions;
  readonly #listeners = new Set<net.Server>();
  readonly #connections = new Set<Connection>();
  #closing = false;
  #idle: (() => void) | undefined;

  constructor(options: ServerOptions = {}) {
    this.#options = options;
    this.#dispatcher = new Dispatcher(options);
  }

  add<S extends DescService>(service: S, implementation: Implementation<S>): void {
    this.#dispatcher.add(service, implementation);
  }

  /** Full names of the services that were added. */
  get services(): string[] {
    return [...this.#dispatcher.services.keys()];
  }

  /** Listens on a unix socket. See `listenUnix` for what may fail. */
  async listenUnix(address: UnixAddress, permissions?: SocketPermissions): Promise<void> {
    const server = net.createServer((socket) => this.serveConnection(socket));
    await listenUnix(server, address, permissions);
    this.#listeners.add(server);
    server.on('error', (error) => this.#options.logger?.error('listener failed', { error }));
  }

  /** Serves calls on a connection of any kind until it closes. */
  serveConnection(socket: Duplex): void {
    if (this.#closing) {
      socket.destroy();
      return;
    }
    const connection = new Connection(socket, this.#dispatcher, this.#options, () => {
      if (this.#closing && this.#active() === 0) this.#idle?.();
    });
    this.#connections.add(connection);
    socket.once('close', () => this.#connections.delete(connection));
  }

  /** Stops listening, lets calls in flight run for at most `graceMs`, then closes all connections. */
  async close(graceMs = 0): Promise<void> {
    this.#closing = true;
    const closed = [...this.#listeners].map((server) => new Promise<void>((done) => server.close(() => done())));
    if (graceMs > 0 && this.#active() > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs);
        this.#idle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    for (const connection of this.#connections) connection.close();
    await Promise.all(closed);
  }

  #active(): number {
    let calls = 0;
    for (const connection of this.#connections) calls += connection.calls;
    return calls;
  }
}

interface Stream {
  readonly call: TtrpcCall;
  /** The request stream, if the method reads one. */
  readonly queue: MessageQueue<Uint8Array> | undefined;
}

class Connection {
  readonly #socket: Duplex;
  readonly #dispatcher: Dispatcher;
  readonly #writer: FrameWriter;
  readonly #window: ReceiveWindow;
  readonly #streams = new Map<number, Stream>();
  readonly #onCallEnd: () => void;
  #lastStreamId = 0;

  constructor(socket: Duplex, dispatcher: Dispatcher, options: ServerOptions, onCallEnd: () => void) {
    this.#socket = socket;
    this.#dispatcher = dispatcher;
    this.#onCallEnd = onCallEnd;
    this.#writer = new FrameWriter(socket);
    this.#window = new ReceiveWindow(socket);
    const reader = new FrameReader(
      (frame) => this.#receive(frame),
      (streamId, length) =>
        this.#refuse(
          streamId,
          resourceExhausted(`message length ${length} exceed maximum message size of ${maxFrameData}`),
        ),
    );
    socket.on('data', (chunk: Buffer) => reader.write(chunk));
    socket.on('end', () => socket.destroy());
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE')
        options.logger?.warn('ttrpc connection failed', { error });
    });
    socket.once('close', () => {
      for (const { call, queue } of this.#streams.values()) {
        const reason = canceled('context canceled');
        queue?.fail(reason);
        call.cancel(reason);
      }
    });
  }

  get calls(): number {
    return this.#streams.size;
  }

  close(): void {
    for (const { call } of this.#streams.values()) call.cancel(unavailable('server is shutting down'));
    this.#socket.end(() => this.#socket.destroy());
  }

  #receive(frame: Frame): void {
    const id = frame.streamId;
    if (id % 2 !== 1) {
      this.#refuse(id, invalidArgument('StreamID must be odd for client initiated streams'));
      return;
    }
    if (frame.type === FrameType.Request) this.#request(frame);
    else if (frame.type === FrameType.Data) this.#data(frame);
    // Other types are left for later versions of the protocol, which asks to ignore them.
  }

  #request(frame: Frame): void {
    const id = frame.streamId;
    if (id <= this.#lastStreamId) {
      this.#refuse(id, invalidArgument('StreamID cannot be re-used and must increment'));
      return;
    }
    this.#lastStreamId = id;
    let request: Request;
    let bound: BoundMethod;
    try {
      request = fromBinary(RequestSchema, frame.data);
    } catch (cause) {
      this.#refuse(id, invalidArgument(`unmarshal request error: ${(cause as Error).message}`, cause));
      return;
    }
    try {
      bound = this.#dispatcher.find(request.service, request.method);
    } catch (reason) {
      this.#refuse(id, StatusError.from(reason));
      return;
    }
    const kind = bound.desc.methodKind;
    const call = new TtrpcCall(bound, request);
    let queue: MessageQueue<Uint8Array> | undefined;
    if (kind === 'client_streaming' || kind === 'bidi_streaming') {
      queue = new MessageQueue();
      queue.onTake = (message) => this.#window.take(message.byteLength);
      if (request.payload.byteLength > 0) this.#push(queue, request.payload);
      if ((frame.flags & FrameFlag.RemoteOpen) === 0) queue.end();
    }
    const timeout = Number(request.timeoutNano) / 1e6;
    if (timeout > 0 && timeout < 2 ** 31)
      call.timer = setTimeout(() => call.cancel(deadlineExceeded('context deadline exceeded')), timeout);
    this.#streams.set(id, { call, queue });
    const streams = kind === 'server_streaming' || kind === 'bidi_streaming';
    const done = () => {
      clearTimeout(call.timer);
      this.#streams.delete(id);
      // What nobody read any more must not count against the connection.
      if (queue) for (let left = queue.size; left > 0; left--) void queue.next();
      queue?.end();
      this.#onCallEnd();
    };
    this.#dispatcher.run(
      call,
      bound,
      queue ?? request.payload,
      streams ? new StreamResponder(id, this.#writer, done) : new UnaryResponder(id, this.#writer, this.#window, done),
    );
  }

  #data(frame: Frame): void {
    const stream = this.#streams.get(frame.streamId);
    if (!stream) {
      this.#refuse(frame.streamId, invalidArgument('StreamID is no longer active'));
      return;
    }
    const { queue, call } = stream;
    if (!queue || queue.ended) {
      // Nothing may follow a unary request or the end of a stream. One answer a stream is all there is, so it is the call's.
      const reason = invalidArgument('data handling error: stream closed');
      call.cancel(reason);
      return;
    }
    if ((frame.flags & FrameFlag.NoData) === 0) this.#push(queue, frame.data);
    if ((frame.flags & FrameFlag.RemoteClosed) !== 0) queue.end();
  }

  #push(queue: MessageQueue<Uint8Array>, message: Uint8Array): void {
    this.#window.add(message.byteLength);
    queue.push(message);
  }

  #refuse(streamId: number, error: StatusError): void {
    const drained = sendStatus(this.#writer, streamId, error);
    if (drained) this.#window.blockUntil(drained);
  }
}

class TtrpcCall extends ServerCall {
  readonly transport = 'ttrpc';
  timer: NodeJS.Timeout | undefined;
  readonly #request: Request;
  #metadata: Metadata | undefined;

  constructor(bound: BoundMethod, request: Request) {
    super(bound.service, bound.desc);
    this.#request = request;
  }

  get metadata(): Metadata {
    if (!this.#metadata) {
      const map = new Map<string, string[]>();
      for (const { key, value } of this.#request.metadata) {
        const name = key.toLowerCase();
        const values = map.get(name);
        if (values) values.push(value);
        else map.set(name, [value]);
      }
      this.#metadata = map;
    }
    return this.#metadata;
  }

  get namespace(): string | undefined {
    return this.metadata.get(ttrpcNamespaceHeader)?.[0];
  }

  get lease(): string | undefined {
    return this.metadata.get(leaseHeader)?.[0];
  }

  sendHeaders(): void {}
}

class UnaryResponder implements Responder {
  readonly #id: number;
  readonly #writer: FrameWriter;
  readonly #window: ReceiveWindow;
  readonly #done: () => void;
  #payload: Uint8Array | undefined;

  constructor(id: number, writer: FrameWriter, window: ReceiveWindow, done: () => void) {
    this.#id = id;
    this.#writer = writer;
    this.#window = window;
    this.#done = done;
  }

  send(head: Uint8Array, tail?: Uint8Array): undefined {
    this.#payload = joined(head, tail);
  }

  end(error: StatusError | undefined): void {
    let drained: Promise<void> | undefined;
    if (error) drained = sendStatus(this.#writer, this.#id, error);
    else {
      // Old clients insist on a status, so an empty one is always there.
      const response = toBinary(ResponseSchema, create(ResponseSchema, { status: {}, payload: this.#payload! }));
      drained =
        response.byteLength > maxFrameData
          ? sendStatus(this.#writer, this.#id, tooLong(response.byteLength))
          : this.#writer.write(this.#id, FrameType.Response, 0, response);
    }
    if (drained) this.#window.blockUntil(drained);
    this.#done();
  }
}

class StreamResponder implements Responder {
  readonly #id: number;
  readonly #writer: FrameWriter;
  readonly #done: () => void;

  constructor(id: number, writer: FrameWriter, done: () => void) {
    this.#id = id;
    this.#writer = writer;
    this.#done = done;
  }

  send(head: Uint8Array, tail?: Uint8Array): Promise<void> | undefined {
    const message = joined(head, tail);
    if (message.byteLength > maxFrameData) throw tooLong(message.byteLength);
    return this.#writer.write(this.#id, FrameType.Data, 0, message);
  }

  end(error: StatusError | undefined): void {
    if (error) void sendStatus(this.#writer, this.#id, error);
    else void this.#writer.write(this.#id, FrameType.Data, FrameFlag.RemoteClosed | FrameFlag.NoData, noBytes);
    this.#done();
  }
}

const noBytes = new Uint8Array(0);

function tooLong(length: number): StatusError {
  return resourceExhausted(`message length ${length} exceed maximum message size of ${maxFrameData}`);
}

function sendStatus(writer: FrameWriter, streamId: number, error: StatusError): Promise<void> | undefined {
  const status = (details: typeof error.details, message: string) =>
    toBinary(
      ResponseSchema,
      create(ResponseSchema, {
        status: {
          code: error.code === Code.Ok ? Code.Unknown : error.code,
          message: message.toWellFormed(),
          details: [...details],
        },
      }),
    );
  let bytes = status(error.details, error.message);
  if (bytes.byteLength > maxFrameData) bytes = status([], error.message.slice(0, 65536));
  return writer.write(streamId, FrameType.Response, 0, bytes);
}
