import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, hasCode, internal, type Time } from '@gantry/api';
import {
  type ImageSchema,
  Images as ImagesService,
  type Image as WireImage,
} from '@gantry/api/gen/services/images/v1/images_pb.js';
import { type Descriptor, fromWireDescriptor, toWireDescriptor } from '@gantry/oci';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { momentFromWire } from './time.ts';

/** An image record: a name for a descriptor in the content store. */
export interface Image {
  readonly name: string;
  readonly target: Descriptor;
  readonly labels: Readonly<Record<string, string>>;
  readonly createdAt: Time | undefined;
  readonly updatedAt: Time | undefined;
}

/** What a new image record needs. */
export interface NewImage {
  name: string;
  target: Descriptor;
  labels?: Record<string, string>;
}

/** The image records of a namespace. What moves whole images is in `transfer`. */
export class Images {
  readonly #service: Client<typeof ImagesService>;

  constructor(transport: Transport) {
    this.#service = createClient(ImagesService, transport);
  }

  /** @throws StatusError NotFound */
  async get(name: string, options?: CallOptions): Promise<Image> {
    return fromWire((await this.#service.get({ name }, options)).image);
  }

  /** Filters as containerd has them (`name==docker.io/library/alpine:3`, `labels."a"==b`); one that fits is enough. */
  async list(filters: string[] = [], options?: CallOptions): Promise<Image[]> {
    return (await this.#service.list({ filters }, options)).images.map(fromWire);
  }

  /** @throws StatusError AlreadyExists */
  async create(image: NewImage, options?: CallOptions): Promise<Image> {
    return fromWire((await this.#service.create({ image: toWire(image) }, options)).image);
  }

  /**
   * Replaces a record, or only the fields at `paths` (`target`, `labels`, `labels.<key>`).
   * @throws StatusError NotFound
   */
  async update(image: NewImage, paths: string[] = [], options?: CallOptions): Promise<Image> {
    const mask = paths.length > 0 ? { updateMask: { paths } } : {};
    return fromWire((await this.#service.update({ image: toWire(image), ...mask }, options)).image);
  }

  /**
   * Deletes a record. `sync` waits until what it alone held is collected; `target` refuses if the record points elsewhere.
   * @throws StatusError NotFound
   */
  async delete(
    name: string,
    settings: { sync?: boolean; target?: Descriptor } = {},
    options?: CallOptions,
  ): Promise<void> {
    const { sync = false, target } = settings;
    await this.#service.delete({ name, sync, ...(target ? { target: toWireDescriptor(target) } : {}) }, options);
  }

  /**
   * Another name for an image. With `force` the name is taken from whatever has it.
   * @throws StatusError NotFound for the first name, AlreadyExists for the second
   */
  async tag(name: string, newName: string, settings: { force?: boolean } = {}, options?: CallOptions): Promise<Image> {
    const { target, labels } = await this.get(name, options);
    const image = { name: newName, target, labels: { ...labels } };
    try {
      return await this.create(image, options);
    } catch (reason) {
      if (!settings.force || !hasCode(reason, Code.AlreadyExists)) throw reason;
      return this.update(image, [], options);
    }
  }
}

function fromWire(wire: WireImage | undefined): Image {
  const target = fromWireDescriptor(wire?.target);
  if (!wire || !target) throw internal('the server sent an image without a target');
  return {
    name: wire.name,
    target,
    labels: wire.labels,
    createdAt: momentFromWire(wire.createdAt),
    updatedAt: momentFromWire(wire.updatedAt),
  };
}

function toWire(image: NewImage): MessageInitShape<typeof ImageSchema> {
  return { name: image.name, target: toWireDescriptor(image.target), labels: image.labels ?? {} };
}
