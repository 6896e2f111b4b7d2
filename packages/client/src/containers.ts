import type { MessageInitShape } from '@bufbuild/protobuf';
import { create } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { internal, jsonAny, type Time, TypeUrl } from '@gantry/api';
import {
  type ContainerSchema,
  Containers as ContainersService,
  type Container as WireContainer,
} from '@gantry/api/gen/services/containers/v1/containers_pb.js';
import { parseJson, type RuntimeSpec, stringifyJson } from '@gantry/oci';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { momentFromWire } from './time.ts';

/** A container record: what is to be run. A running one is a task. */
export interface Container {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Name of the image it came from; may be empty. */
  readonly image: string;
  readonly runtime: { readonly name: string; readonly options: Any | undefined };
  /** The OCI runtime spec as it is kept: see `specOf`. */
  readonly spec: Any | undefined;
  readonly snapshotter: string;
  readonly snapshotKey: string;
  readonly extensions: Readonly<Record<string, Any>>;
  /** Id of the sandbox it belongs to; may be empty. */
  readonly sandbox: string;
  readonly createdAt: Time | undefined;
  readonly updatedAt: Time | undefined;
}

/** What a new container record needs; the daemon fills in the times. */
export interface NewContainer {
  id: string;
  labels?: Record<string, string>;
  image?: string;
  /** Default `io.containerd.runc.v2`. */
  runtime?: { name: string; options?: Any };
  /** The spec as an object, or ready-made. */
  spec?: RuntimeSpec | Any;
  snapshotter?: string;
  snapshotKey?: string;
  extensions?: Record<string, Any>;
  sandbox?: string;
}

export const defaultRuntime = 'io.containerd.runc.v2';

/** The container records of a namespace. */
export class Containers {
  readonly #service: Client<typeof ContainersService>;

  constructor(transport: Transport) {
    this.#service = createClient(ContainersService, transport);
  }

  /** @throws StatusError NotFound */
  async get(id: string, options?: CallOptions): Promise<Container> {
    return fromWire((await this.#service.get({ id }, options)).container);
  }

  /** Filters as containerd has them (`id==a`, `labels."x"==y`, `runtime.name==z`); one that fits is enough. */
  async list(filters: string[] = [], options?: CallOptions): Promise<Container[]> {
    return (await this.#service.list({ filters }, options)).containers.map(fromWire);
  }

  /** @throws StatusError AlreadyExists, InvalidArgument */
  async create(container: NewContainer, options?: CallOptions): Promise<Container> {
    const runtime = container.runtime ?? { name: defaultRuntime };
    return fromWire((await this.#service.create({ container: toWire({ ...container, runtime }) }, options)).container);
  }

  /**
   * Changes the fields at `paths` (`labels`, `labels.<key>`, `spec`, `image`, `extensions.<key>`, `snapshotkey`), without any
   * all that may change. @throws StatusError NotFound
   */
  async update(container: NewContainer, paths: string[] = [], options?: CallOptions): Promise<Container> {
    const mask = paths.length > 0 ? { updateMask: { paths } } : {};
    return fromWire((await this.#service.update({ container: toWire(container), ...mask }, options)).container);
  }

  /** Deletes the record only; its snapshot stays. @throws StatusError NotFound */
  async delete(id: string, options?: CallOptions): Promise<void> {
    await this.#service.delete({ id }, options);
  }
}

/** The OCI runtime spec of a container, parsed without loss. @throws StatusError Internal if it has none */
export function specOf(container: Pick<Container, 'id' | 'spec'>): RuntimeSpec {
  if (!container.spec) throw internal(`container ${container.id} has no spec`);
  return parseJson<RuntimeSpec>(container.spec.value);
}

/** A spec as it is kept in container records. */
export function specAny(spec: RuntimeSpec | Any): Any {
  return isAnyMessage(spec) ? spec : jsonAny(TypeUrl.RuntimeSpec, stringifyJson(spec));
}

function isAnyMessage(value: object): value is Any {
  return (value as { $typeName?: string }).$typeName === AnySchema.typeName;
}

function fromWire(wire: WireContainer | undefined): Container {
  if (!wire) throw internal('the server sent no container');
  return {
    id: wire.id,
    labels: wire.labels,
    image: wire.image,
    runtime: { name: wire.runtime?.name ?? '', options: wire.runtime?.options },
    spec: wire.spec,
    snapshotter: wire.snapshotter,
    snapshotKey: wire.snapshotKey,
    extensions: wire.extensions,
    sandbox: wire.sandbox,
    createdAt: momentFromWire(wire.createdAt),
    updatedAt: momentFromWire(wire.updatedAt),
  };
}

function toWire(container: NewContainer): MessageInitShape<typeof ContainerSchema> {
  const { spec, runtime, extensions, ...rest } = container;
  return {
    ...rest,
    ...(runtime ? { runtime: { name: runtime.name, ...(runtime.options ? { options: runtime.options } : {}) } } : {}),
    ...(spec ? { spec: specAny(spec) } : {}),
    ...(extensions
      ? {
          extensions: Object.fromEntries(Object.entries(extensions).map(([key, any]) => [key, create(AnySchema, any)])),
        }
      : {}),
  };
}
