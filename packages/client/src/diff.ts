import { internal, type Time, toTimestamp } from '@gantry/api';
import { Diff as DiffService } from '@gantry/api/gen/services/diff/v1/diff_pb.js';
import { type Descriptor, fromWireDescriptor, toWireDescriptor } from '@gantry/oci';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import type { Mount } from './mount.ts';

/** Layers: made from the difference of two sets of mounts, or unpacked onto one. */
export class Diff {
  readonly #service: Client<typeof DiffService>;

  constructor(transport: Transport) {
    this.#service = createClient(DiffService, transport);
  }

  /** Unpacks a layer of the content store. @returns the uncompressed layer, whose digest is its diff id */
  async apply(
    layer: Descriptor,
    mounts: Mount[],
    settings: { syncFs?: boolean } = {},
    options?: CallOptions,
  ): Promise<Descriptor> {
    const request = { diff: toWireDescriptor(layer), mounts, syncFs: settings.syncFs ?? false };
    const applied = fromWireDescriptor((await this.#service.apply(request, options)).applied);
    if (!applied) throw internal('the server sent no descriptor of what it applied');
    return applied;
  }

  /** Writes what `upper` has more or other than `lower` into the content store as a layer. */
  async compare(
    lower: Mount[],
    upper: Mount[],
    settings: { mediaType?: string; ref?: string; labels?: Record<string, string>; sourceDateEpoch?: Time } = {},
    options?: CallOptions,
  ): Promise<Descriptor> {
    const { mediaType = '', ref = '', labels = {}, sourceDateEpoch } = settings;
    const epoch = sourceDateEpoch ? { sourceDateEpoch: toTimestamp(sourceDateEpoch) } : {};
    const { diff } = await this.#service.diff({ left: lower, right: upper, mediaType, ref, labels, ...epoch }, options);
    const descriptor = fromWireDescriptor(diff);
    if (!descriptor) throw internal('the server sent no descriptor of the difference');
    return descriptor;
  }
}
