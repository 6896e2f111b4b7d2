import type { DescService } from '@bufbuild/protobuf';
import { deadlineExceeded, StatusError } from '@gantry/api';
import {
  createClient,
  type GrpcTransportOptions,
  grpcTransport,
  type Client as ServiceClient,
  type Transport,
} from '@gantry/rpc';
import { Containers } from './containers.ts';
import { Content } from './content.ts';
import { Diff } from './diff.ts';
import { Events } from './events.ts';
import { Images } from './images.ts';
import { Introspection } from './introspection.ts';
import { type Lease, Leases } from './leases.ts';
import { Mounts } from './mounts.ts';
import { Namespaces } from './namespaces.ts';
import { Sandboxes } from './sandboxes.ts';
import { type Scope, scoped } from './scope.ts';
import { Snapshots } from './snapshots.ts';
import { Tasks } from './tasks.ts';
import { Transfer } from './transfer.ts';

export const defaultAddress = '/run/containerd/containerd.sock';
export const defaultNamespace = 'default';

export interface ConnectOptions extends Pick<GrpcTransportOptions, 'credentials' | 'maxMessageBytes' | 'userAgent'> {
  /** A path, `unix:///path` or `host:port`. Default: containerd's socket. */
  address?: string;
  /** Default `default`. */
  namespace?: string;
  /** How long to wait for the daemon. Default 10 seconds; 0 does not wait at all. */
  timeoutMs?: number;
}

/**
 * A containerd-compatible daemon, seen from one namespace. All methods take call options last (`signal`, `timeoutMs`) and throw
 * StatusError. `await using` closes the connection at the end of its block.
 */
export class Client implements AsyncDisposable {
  readonly namespace: string;
  readonly #connection: Transport;
  readonly #transport: Transport;
  readonly #parts = new Map<string, unknown>();

  /** A client on a connection that somebody made; `connect` makes one. */
  constructor(connection: Transport, scope: Scope) {
    this.namespace = scope.namespace;
    this.#connection = connection;
    this.#transport = scoped(connection, scope);
  }

  /** Connects to a daemon. @throws StatusError DeadlineExceeded if it does not answer in time */
  static async connect(options: ConnectOptions = {}): Promise<Client> {
    const { address = defaultAddress, namespace = defaultNamespace, timeoutMs = 10_000, ...rest } = options;
    const transport = grpcTransport(address, rest);
    if (timeoutMs > 0) {
      try {
        await transport.ready(timeoutMs);
      } catch (reason) {
        await transport.close();
        throw deadlineExceeded(`failed to dial "${address}": context deadline exceeded`, StatusError.from(reason));
      }
    }
    return new Client(transport, { namespace });
  }

  /** The same connection in another namespace. */
  inNamespace(namespace: string): Client {
    return new Client(this.#connection, { namespace });
  }

  /** The same connection and namespace; what is made through it is kept by the lease. */
  withLease(lease: Lease | string): Client {
    return new Client(this.#connection, {
      namespace: this.namespace,
      lease: typeof lease === 'string' ? lease : lease.id,
    });
  }

  get images(): Images {
    return this.#part('images', Images);
  }

  get content(): Content {
    return this.#part('content', Content);
  }

  get containers(): Containers {
    return this.#part('containers', Containers);
  }

  get tasks(): Tasks {
    return this.#part('tasks', Tasks);
  }

  get transfer(): Transfer {
    return this.#part('transfer', Transfer);
  }

  get events(): Events {
    return this.#part('events', Events);
  }

  get leases(): Leases {
    return this.#part('leases', Leases);
  }

  get namespaces(): Namespaces {
    return this.#part('namespaces', Namespaces);
  }

  get introspection(): Introspection {
    return this.#part('introspection', Introspection);
  }

  get diff(): Diff {
    return this.#part('diff', Diff);
  }

  get sandboxes(): Sandboxes {
    return this.#part('sandboxes', Sandboxes);
  }

  get mounts(): Mounts {
    return this.#part('mounts', Mounts);
  }

  /** The snapshots of one snapshotter, as `overlayfs`. */
  snapshots(snapshotter: string): Snapshots {
    return new Snapshots(this.#transport, snapshotter);
  }

  version(): Promise<{ version: string; revision: string }> {
    return this.introspection.version();
  }

  /** The bare methods of any service, in this client's namespace. */
  service<S extends DescService>(service: S): ServiceClient<S> {
    return createClient(service, this.#transport);
  }

  /** Closes the connection, for all clients that share it. */
  async close(): Promise<void> {
    await this.#connection.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #part<T>(name: string, Part: new (transport: Transport) => T): T {
    let part = this.#parts.get(name) as T | undefined;
    if (!part) {
      part = new Part(this.#transport);
      this.#parts.set(name, part);
    }
    return part;
  }
}
