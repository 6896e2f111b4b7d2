import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type CallContext, GrpcServer, type ServiceRegistrar } from '@gantry/rpc';

/** The other process of a proxy plugin, for tests: a gRPC server on a socket that can be shut and opened again. */
export class TestingPeer {
  readonly directory: string;
  /** The namespace of each call, as it came. */
  readonly namespaces: (string | undefined)[] = [];
  readonly #register: (grpc: ServiceRegistrar) => void;
  #server: GrpcServer | undefined;

  private constructor(directory: string, register: (grpc: ServiceRegistrar) => void) {
    this.directory = directory;
    this.#register = register;
  }

  static async open(register: (grpc: ServiceRegistrar) => void): Promise<TestingPeer> {
    const peer = new TestingPeer(await mkdtemp(path.join(tmpdir(), 'gantry-peer-')), register);
    await peer.start();
    return peer;
  }

  get address(): string {
    return path.join(this.directory, 'peer.sock');
  }

  async start(): Promise<void> {
    const server = new GrpcServer();
    this.#register({
      add: (service, implementation) => server.add(service, this.#withoutNamespaces(implementation)),
    });
    await server.listenUnix(this.address);
    this.#server = server;
  }

  async stop(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
  }

  async close(): Promise<void> {
    await this.stop();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Handlers that do without a namespace, as those of plugins do: ours are given one where there is none. */
  #withoutNamespaces<T extends object>(implementation: T): T {
    type AnyHandler = (request: unknown, call: CallContext) => unknown;
    return Object.fromEntries(
      Object.entries(implementation as Record<string, AnyHandler>).map(([name, handler]) => [
        name,
        (request: unknown, call: CallContext) => {
          this.namespaces.push(call.namespace);
          return handler(request, named(call));
        },
      ]),
    ) as T;
  }
}

function named(call: CallContext): CallContext {
  return new Proxy(call, {
    get(target, name) {
      const value = Reflect.get(target, name, target);
      if (name === 'namespace') return value ?? 'peer';
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
