import { internal } from '@gantry/api';
import {
  Namespaces as NamespacesService,
  type Namespace as WireNamespace,
} from '@gantry/api/gen/services/namespaces/v1/namespace_pb.js';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';

/** A namespace: names in one are not seen in another. */
export interface Namespace {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export class Namespaces {
  readonly #service: Client<typeof NamespacesService>;

  constructor(transport: Transport) {
    this.#service = createClient(NamespacesService, transport);
  }

  /** One that nobody made has no labels: neither containerd nor Gantry tells it from one that is there; `list` does. */
  async get(name: string, options?: CallOptions): Promise<Namespace> {
    return fromWire((await this.#service.get({ name }, options)).namespace);
  }

  async list(options?: CallOptions): Promise<Namespace[]> {
    return (await this.#service.list({}, options)).namespaces.map(fromWire);
  }

  /** @throws StatusError AlreadyExists */
  async create(name: string, labels: Record<string, string> = {}, options?: CallOptions): Promise<Namespace> {
    return fromWire((await this.#service.create({ namespace: { name, labels } }, options)).namespace);
  }

  /** Sets labels; with an empty value a label is removed. Others stay. Makes the namespace if it is not there. */
  async setLabels(name: string, labels: Record<string, string>, options?: CallOptions): Promise<Namespace> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    const { namespace } = await this.#service.update({ namespace: { name, labels }, updateMask: { paths } }, options);
    // containerd does not tell what it made of it.
    return namespace ? fromWire(namespace) : this.get(name, options);
  }

  /** @throws StatusError NotFound, FailedPrecondition while anything is left in it */
  async delete(name: string, options?: CallOptions): Promise<void> {
    await this.#service.delete({ name }, options);
  }
}

function fromWire(wire: WireNamespace | undefined): Namespace {
  if (!wire) throw internal('the server sent no namespace');
  return { name: wire.name, labels: wire.labels };
}
