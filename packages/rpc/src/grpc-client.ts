import type { DescMethod } from '@bufbuild/protobuf';
import { deadlineExceeded, StatusError } from '@gantry/api';
import {
  type ChannelCredentials,
  Client,
  credentials,
  type CallOptions as GrpcCallOptions,
  Metadata,
} from '@grpc/grpc-js';
import { abortError } from './abort-error.ts';
import { fromGrpcStatus } from './grpc-status.ts';
import { leaseHeader, namespaceHeader, ttrpcNamespaceHeader } from './headers.ts';
import { MessageQueue } from './message-queue.ts';
import type { CallOptions, Transport } from './service.ts';

export interface GrpcTransportOptions {
  /** Namespace of calls that name none. */
  namespace?: string;
  /** TLS (or other) credentials for TCP. Default: none. */
  credentials?: ChannelCredentials;
  /** Bytes of the largest message taken or sent. Default 16 MiB. */
  maxMessageBytes?: number;
  /** Milliseconds between keep-alive pings; 0, the default, sends none. */
  keepAliveMs?: number;
  /** Sent as the first part of the user agent. */
  userAgent?: string;
}

/** A gRPC connection, made at the first call and made again when it breaks. */
export interface GrpcTransport extends Transport {
  /** Waits until the server answers. @throws StatusError DeadlineExceeded */
  ready(timeoutMs: number): Promise<void>;
}

/** A transport to `/run/x.sock`, `unix:///run/x.sock` or `host:port`. */
export function grpcTransport(address: string, options: GrpcTransportOptions = {}): GrpcTransport {
  const limit = options.maxMessageBytes ?? 16 << 20;
  const client = new Client(target(address), options.credentials ?? credentials.createInsecure(), {
    'grpc.max_receive_message_length': limit,
    'grpc.max_send_message_length': limit,
    'grpc.enable_channelz': 0,
    'grpc.enable_retries': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 3000,
    'grpc-node.flow_control_window': 4 << 20,
    ...(options.keepAliveMs ? { 'grpc.keepalive_time_ms': options.keepAliveMs } : {}),
    ...(options.userAgent ? { 'grpc.primary_user_agent': options.userAgent } : {}),
  });
  return new ClientTransport(client, options.namespace);
}

function target(address: string): string {
  if (address.startsWith('/')) return `unix:${address}`;
  if (address.startsWith('unix://') || address.startsWith('unix:')) return address;
  return address.replace(/^tcp:\/\//, '');
}

class ClientTransport implements GrpcTransport {
  readonly #client: Client;
  readonly #namespace: string | undefined;

  constructor(client: Client, namespace: string | undefined) {
    this.#client = client;
    this.#namespace = namespace;
  }

  unary(method: DescMethod, request: Uint8Array, options: CallOptions): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const { signal } = options;
      if (signal?.aborted) {
        reject(abortError(signal));
        return;
      }
      const call = this.#client.makeUnaryRequest(
        pathOf(method),
        asBuffer,
        (bytes: Buffer) => bytes,
        request,
        this.#metadata(options),
        callOptions(options),
        (error, answer) => {
          signal?.removeEventListener('abort', abort);
          if (!error) resolve(answer!);
          else reject(signal?.aborted ? abortError(signal) : fromGrpcStatus(error));
        },
      );
      const abort = () => call.cancel();
      signal?.addEventListener('abort', abort);
    });
  }

  stream(method: DescMethod, requests: AsyncIterable<Uint8Array>, options: CallOptions): AsyncIterable<Uint8Array> {
    const answers = new MessageQueue<Uint8Array>();
    const { signal } = options;
    if (signal?.aborted) {
      answers.fail(abortError(signal));
      return answers;
    }
    const metadata = this.#metadata(options);
    const call = this.#client.makeBidiStreamRequest(
      pathOf(method),
      asBuffer,
      (b: Buffer) => b,
      metadata,
      callOptions(options),
    );
    let over = false;
    let wake: (() => void) | undefined;
    const finish = () => {
      over = true;
      signal?.removeEventListener('abort', abort);
      wake?.();
    };
    const abort = () => call.cancel();
    signal?.addEventListener('abort', abort);
    let paused = false;
    call.on('data', (bytes: Buffer) => {
      answers.push(bytes);
      if (answers.size >= 4 && !paused) {
        paused = true;
        call.pause();
      }
    });
    answers.onTake = () => {
      if (!paused || answers.size > 0) return;
      paused = false;
      call.resume();
    };
    answers.onReturn = abort;
    call.on('status', finish);
    call.on('end', () => answers.end());
    call.on('error', (error) => {
      finish();
      answers.fail(signal?.aborted ? abortError(signal) : fromGrpcStatus(error as never));
    });
    call.on('drain', () => wake?.());
    const send = async () => {
      const iterator = requests[Symbol.asyncIterator]();
      while (!over) {
        const { done, value } = await iterator.next();
        if (done) {
          call.end();
          return;
        }
        if (over || call.destroyed) break;
        if (!call.write(value))
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
      await iterator.return?.();
    };
    send().catch((reason) => {
      // What broke is the caller's own stream of requests: that is its error, not the server's.
      answers.fail(StatusError.from(reason));
      call.cancel();
    });
    return answers;
  }

  ready(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#client.waitForReady(Date.now() + timeoutMs, (error) => {
        if (error) reject(deadlineExceeded(error.message, error));
        else resolve();
      });
    });
  }

  close(): Promise<void> {
    this.#client.close();
    return Promise.resolve();
  }

  #metadata(options: CallOptions): Metadata {
    const metadata = new Metadata();
    const namespace = options.namespace ?? this.#namespace;
    if (namespace !== undefined) {
      metadata.set(namespaceHeader, namespace);
      metadata.set(ttrpcNamespaceHeader, namespace);
    }
    if (options.lease !== undefined) metadata.set(leaseHeader, options.lease);
    if (options.metadata) for (const [name, value] of Object.entries(options.metadata)) metadata.set(name, value);
    return metadata;
  }
}

const noOptions: GrpcCallOptions = {};

function callOptions(options: CallOptions): GrpcCallOptions {
  return options.timeoutMs === undefined ? noOptions : { deadline: Date.now() + options.timeoutMs };
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
