import { unimplemented } from '@gantry/api';
import { Task as TaskV2 } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import { Task as TaskV3 } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { type Client, createClient, grpcTransport, ttrpcTransport } from '@gantry/rpc';
import type { Bootstrap } from './bootstrap.ts';

/** The task API of a shim. Versions 2 and 3 differ in the service's name only, so one type serves for both. */
export type TaskClient = Client<typeof TaskV3>;

/** An open connection to one shim process, shared by all tasks that live in it. */
export class ShimConnection {
  readonly bootstrap: Bootstrap;
  readonly task: TaskClient;
  /** Settles when the connection is gone, for whatever reason. */
  readonly closed: Promise<void>;
  #close: () => Promise<void>;
  #open = true;

  private constructor(bootstrap: Bootstrap, task: TaskClient, closed: Promise<void>, close: () => Promise<void>) {
    this.bootstrap = bootstrap;
    this.task = task;
    this.#close = close;
    this.closed = closed;
  }

  get open(): boolean {
    return this.#open;
  }

  /** @throws Unavailable if nobody listens there within the time. */
  static async connect(bootstrap: Bootstrap, timeoutMs: number): Promise<ShimConnection> {
    if (bootstrap.protocol === 'grpc') {
      const transport = grpcTransport(bootstrap.address);
      const { promise, resolve } = Promise.withResolvers<void>();
      const close = async (): Promise<void> => {
        await transport.close();
        resolve();
      };
      return new ShimConnection(bootstrap, clientFor(bootstrap, transport), promise, close);
    }
    const transport = ttrpcTransport(bootstrap.address);
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(() => void transport.close(), timeoutMs);
    try {
      await transport.ready();
    } finally {
      clearTimeout(timer);
    }
    const connection = new ShimConnection(bootstrap, clientFor(bootstrap, transport), promise, () => transport.close());
    // At once, so that a call that fails for it finds the connection closed.
    transport.onClose(() => {
      connection.#open = false;
      resolve();
    });
    return connection;
  }

  async close(): Promise<void> {
    this.#open = false;
    await this.#close();
  }
}

function clientFor(bootstrap: Bootstrap, transport: Parameters<typeof createClient>[1]): TaskClient {
  switch (bootstrap.version) {
    case 2:
      return createClient(TaskV2, transport) as unknown as TaskClient;
    case 3:
      return createClient(TaskV3, transport);
    default:
      throw unimplemented(`shim task API version ${bootstrap.version}`);
  }
}
