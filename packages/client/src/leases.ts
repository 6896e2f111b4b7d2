import { Code, formatTime, fromMillis, hasCode, internal, type Time } from '@gantry/api';
import { Leases as LeasesService, type Lease as WireLease } from '@gantry/api/gen/services/leases/v1/leases_pb.js';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { momentFromWire } from './time.ts';

/** Something a lease keeps. */
export interface LeaseResource {
  /** A digest, a snapshot's key, the ref of an ingest, an image's name. */
  id: string;
  /** `content`, `ingests`, `images` or `snapshots/<snapshotter>`. */
  type: string;
}

export interface NewLease {
  /** Default: one that is made up. */
  id?: string;
  labels?: Record<string, string>;
  /** Seconds after which the collector may take it. Default: never. */
  expireAfter?: number;
}

/** Keeps what is made under it from the garbage collector. `await using` deletes it at the end of its block. */
export class Lease implements AsyncDisposable {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly createdAt: Time | undefined;
  readonly #service: Client<typeof LeasesService>;

  constructor(service: Client<typeof LeasesService>, wire: WireLease) {
    this.#service = service;
    this.id = wire.id;
    this.labels = wire.labels;
    this.createdAt = momentFromWire(wire.createdAt);
  }

  /** `sync` waits until what it alone kept is collected. @throws StatusError NotFound */
  async delete(settings: { sync?: boolean } = {}, options?: CallOptions): Promise<void> {
    await this.#service.delete({ id: this.id, sync: settings.sync ?? false }, options);
  }

  async resources(options?: CallOptions): Promise<LeaseResource[]> {
    const { resources } = await this.#service.listResources({ id: this.id }, options);
    return resources.map(({ id, type }) => ({ id, type }));
  }

  async add(resource: LeaseResource, options?: CallOptions): Promise<void> {
    await this.#service.addResource({ id: this.id, resource }, options);
  }

  async remove(resource: LeaseResource, options?: CallOptions): Promise<void> {
    await this.#service.deleteResource({ id: this.id, resource }, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.delete();
    } catch (reason) {
      if (!hasCode(reason, Code.NotFound)) throw reason;
    }
  }
}

/** The leases of a namespace. */
export class Leases {
  readonly #service: Client<typeof LeasesService>;

  constructor(transport: Transport) {
    this.#service = createClient(LeasesService, transport);
  }

  /** @throws StatusError AlreadyExists */
  async create(lease: NewLease = {}, options?: CallOptions): Promise<Lease> {
    const labels = { ...lease.labels };
    if (lease.expireAfter !== undefined)
      labels['containerd.io/gc.expire'] = formatTime(fromMillis(Date.now() + lease.expireAfter * 1000));
    const id = lease.id ?? `${process.hrtime.bigint()}-${Math.random().toString(36).slice(2, 6)}`;
    return this.#lease((await this.#service.create({ id, labels }, options)).lease);
  }

  async list(filters: string[] = [], options?: CallOptions): Promise<Lease[]> {
    return (await this.#service.list({ filters }, options)).leases.map((wire) => this.#lease(wire));
  }

  /** @throws StatusError NotFound */
  async delete(id: string, settings: { sync?: boolean } = {}, options?: CallOptions): Promise<void> {
    await this.#service.delete({ id, sync: settings.sync ?? false }, options);
  }

  #lease(wire: WireLease | undefined): Lease {
    if (!wire) throw internal('the server sent no lease');
    return new Lease(this.#service, wire);
  }
}
