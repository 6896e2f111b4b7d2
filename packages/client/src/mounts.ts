import { internal, type Time } from '@gantry/api';
import { Mounts as MountsService } from '@gantry/api/gen/services/mounts/v1/mounts_pb.js';
import type { ActivationInfo } from '@gantry/api/gen/types/mount_pb.js';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { fromWireMount, type Mount } from './mount.ts';
import { momentFromWire } from './time.ts';

/** Mounts that the daemon performed, and what is left to perform. */
export interface Activation {
  readonly name: string;
  readonly active: readonly { mount: Mount | undefined; mountedAt: Time | undefined; mountPoint: string }[];
  /** To be mounted by whoever needs the files. */
  readonly system: readonly Mount[];
  readonly labels: Readonly<Record<string, string>>;
}

/** Mounts that need more than mount(2). Daemons from containerd 2.2 on. */
export class Mounts {
  readonly #service: Client<typeof MountsService>;

  constructor(transport: Transport) {
    this.#service = createClient(MountsService, transport);
  }

  /** @throws StatusError AlreadyExists */
  async activate(
    name: string,
    mounts: Mount[],
    settings: { labels?: Record<string, string>; temporary?: boolean } = {},
    options?: CallOptions,
  ): Promise<Activation> {
    return fromWire((await this.#service.activate({ name, mounts, ...settings }, options)).info);
  }

  /** @throws StatusError NotFound */
  async deactivate(name: string, options?: CallOptions): Promise<void> {
    await this.#service.deactivate({ name }, options);
  }

  /** @throws StatusError NotFound */
  async info(name: string, options?: CallOptions): Promise<Activation> {
    return fromWire((await this.#service.info({ name }, options)).info);
  }

  async *list(filters: string[] = [], options?: CallOptions): AsyncGenerator<Activation> {
    for await (const { info } of this.#service.list({ filters }, options)) yield fromWire(info);
  }
}

function fromWire(wire: ActivationInfo | undefined): Activation {
  if (!wire) throw internal('the server sent no activation');
  return {
    name: wire.name,
    active: wire.active.map(({ mount, mountedAt, mountPoint }) => ({
      mount: mount && fromWireMount(mount),
      mountedAt: momentFromWire(mountedAt),
      mountPoint,
    })),
    system: wire.system.map(fromWireMount),
    labels: wire.labels,
  };
}
