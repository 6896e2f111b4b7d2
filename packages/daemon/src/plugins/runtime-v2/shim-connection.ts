import net from 'node:net';
import type { DescService } from '@bufbuild/protobuf';
import { Code, hasCode, StatusError, unavailable, unimplemented } from '@gantry/api';
import { Shim } from '@gantry/api/gen/gantry/shim/v1/shim_pb.js';
import { Task as TaskV2 } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import { Task as TaskV3 } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { type Client, createClient, grpcTransport, socketPath, type Transport, ttrpcTransport } from '@gantry/rpc';
import type { Bootstrap } from './bootstrap.ts';

/** The task API of a shim. Versions 2 and 3 differ in the service's name only, so one type serves for both. */
export type TaskClient = Client<typeof TaskV3>;

/** An open connection to one shim process, shared by all tasks that live in it. */
export class ShimConnection {
  /** Settles when the connection is gone, for whatever reason. */
  readonly closed: Promise<void>;
  readonly #transport: Transport;
  readonly #resolveClosed: () => void;
  #bootstrap: Bootstrap;
  #task: TaskClient;
  #open = true;

  private constructor(bootstrap: Bootstrap, connect: (onClose: () => void) => Transport) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.#bootstrap = bootstrap;
    this.#transport = connect(() => this.#gone());
    this.#task = clientFor(bootstrap, this.#transport);
  }

  get open(): boolean {
    return this.#open;
  }

  get bootstrap(): Bootstrap {
    return this.#bootstrap;
  }

  get task(): TaskClient {
    return this.#task;
  }

  /** What only a shim of ours answers. */
  get shim(): Client<typeof Shim> {
    return createClient(Shim, this.#transport);
  }

  /** A client of another service that the shim may serve on the same connection. */
  client<S extends DescService>(service: S): Client<S> {
    return createClient(service, this.#transport);
  }

  /** @throws Unavailable if nobody listens there within the time. */
  static async connect(bootstrap: Bootstrap, timeoutMs: number): Promise<ShimConnection> {
    const scheme = /^([a-z]+):\/\//.exec(bootstrap.address)?.[1] ?? 'unix';
    if (scheme !== 'unix')
      throw unimplemented(`unsupported protocol: ${scheme}: shims are spoken to over unix sockets`);
    return bootstrap.protocol === 'grpc' ? connectGrpc(bootstrap, timeoutMs) : connectTtrpc(bootstrap, timeoutMs);
  }

  /** For `connect`. @param connect makes the transport, and has it call back when it is closed */
  static over(bootstrap: Bootstrap, connect: (onClose: () => void) => Transport): ShimConnection {
    return new ShimConnection(bootstrap, connect);
  }

  /**
   * Goes on with version 2 of the task API after a call of version 3 was not implemented: the program was replaced by a newer
   * one, which told the version, while the old process serves on. @returns false if that was not it
   */
  downgrade(error: unknown): boolean {
    if (this.#bootstrap.version !== 3 || !hasCode(error, Code.Unimplemented)) return false;
    this.#bootstrap = { ...this.#bootstrap, version: 2 };
    this.#task = clientFor(this.#bootstrap, this.#transport);
    return true;
  }

  async close(): Promise<void> {
    this.#open = false;
    await this.#transport.close();
    this.#resolveClosed();
  }

  /** At once, so that a call that fails for it finds the connection closed. */
  #gone(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#resolveClosed();
    void this.#transport.close();
  }
}

async function connectTtrpc(bootstrap: Bootstrap, timeoutMs: number): Promise<ShimConnection> {
  const transport = ttrpcTransport(bootstrap.address);
  const timer = setTimeout(() => void transport.close(), timeoutMs);
  try {
    await transport.ready();
  } finally {
    clearTimeout(timer);
  }
  return ShimConnection.over(bootstrap, (onClose) => {
    transport.onClose(onClose);
    return transport;
  });
}

/** gRPC connections make themselves again; that of a shim is over with its process, so the first break is the end. */
async function connectGrpc(bootstrap: Bootstrap, timeoutMs: number): Promise<ShimConnection> {
  await dial(bootstrap.address, timeoutMs);
  let onClose: (() => void) | undefined;
  const transport = grpcTransport(bootstrap.address, { onDisconnect: () => onClose?.() });
  try {
    await transport.ready(timeoutMs);
  } catch (error) {
    await transport.close();
    throw error;
  }
  return ShimConnection.over(bootstrap, (listener) => {
    onClose = listener;
    return transport;
  });
}

/** Whether somebody listens there: waiting for a gRPC server waits for one that is to come, too. */
function dial(address: string, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path: socketPath(address), timeout: timeoutMs });
    const fail = (cause?: Error): void => {
      socket.destroy();
      reject(
        cause
          ? new StatusError(Code.Unavailable, `shim ${address}: ${cause.message}`, { cause })
          : unavailable(`shim ${address}: no answer in ${timeoutMs} ms`),
      );
    };
    socket.once('error', fail);
    socket.once('timeout', () => fail());
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
  });
}

function clientFor(bootstrap: Bootstrap, transport: Transport): TaskClient {
  switch (bootstrap.version) {
    case 2:
      return createClient(TaskV2, transport) as unknown as TaskClient;
    case 3:
      return createClient(TaskV3, transport);
    default:
      throw unimplemented(`shim task API version ${bootstrap.version}`);
  }
}
