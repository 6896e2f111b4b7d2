import { internal, type Time } from '@gantry/api';
import {
  Kind,
  Snapshots as SnapshotsService,
  type Info as WireInfo,
} from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { fromWireMount, type Mount } from './mount.ts';
import { momentFromWire } from './time.ts';

export type SnapshotKind = 'view' | 'active' | 'committed' | 'unknown';

export interface SnapshotInfo {
  readonly name: string;
  /** Empty if it has none. */
  readonly parent: string;
  readonly kind: SnapshotKind;
  readonly labels: Readonly<Record<string, string>>;
  readonly createdAt: Time | undefined;
  readonly updatedAt: Time | undefined;
}

/** The snapshots of one snapshotter in a namespace. */
export class Snapshots {
  readonly snapshotter: string;
  readonly #service: Client<typeof SnapshotsService>;

  constructor(transport: Transport, snapshotter: string) {
    this.snapshotter = snapshotter;
    this.#service = createClient(SnapshotsService, transport);
  }

  /** A writable snapshot on a committed parent ('' for none). @throws StatusError AlreadyExists, NotFound */
  async prepare(
    key: string,
    parent = '',
    labels: Record<string, string> = {},
    options?: CallOptions,
  ): Promise<Mount[]> {
    const request = { snapshotter: this.snapshotter, key, parent, labels };
    return (await this.#service.prepare(request, options)).mounts.map(fromWireMount);
  }

  /** A read-only snapshot of a committed parent. @throws StatusError AlreadyExists, NotFound */
  async view(key: string, parent = '', labels: Record<string, string> = {}, options?: CallOptions): Promise<Mount[]> {
    const request = { snapshotter: this.snapshotter, key, parent, labels };
    return (await this.#service.view(request, options)).mounts.map(fromWireMount);
  }

  /** The mounts of an active snapshot or view. @throws StatusError NotFound */
  async mounts(key: string, options?: CallOptions): Promise<Mount[]> {
    return (await this.#service.mounts({ snapshotter: this.snapshotter, key }, options)).mounts.map(fromWireMount);
  }

  /** Seals an active snapshot under a name. @throws StatusError AlreadyExists, NotFound */
  async commit(name: string, key: string, labels: Record<string, string> = {}, options?: CallOptions): Promise<void> {
    await this.#service.commit({ snapshotter: this.snapshotter, name, key, labels }, options);
  }

  /** @throws StatusError NotFound, FailedPrecondition if it has children */
  async remove(key: string, options?: CallOptions): Promise<void> {
    await this.#service.remove({ snapshotter: this.snapshotter, key }, options);
  }

  /** @throws StatusError NotFound */
  async stat(key: string, options?: CallOptions): Promise<SnapshotInfo> {
    return fromWire((await this.#service.stat({ snapshotter: this.snapshotter, key }, options)).info);
  }

  /** Sets labels; with an empty value a label is removed. Others stay. @throws StatusError NotFound */
  async setLabels(name: string, labels: Record<string, string>, options?: CallOptions): Promise<SnapshotInfo> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    const request = { snapshotter: this.snapshotter, info: { name, labels }, updateMask: { paths } };
    return fromWire((await this.#service.update(request, options)).info);
  }

  async *list(filters: string[] = [], options?: CallOptions): AsyncGenerator<SnapshotInfo> {
    const pages = this.#service.list({ snapshotter: this.snapshotter, filters }, options);
    for await (const { info } of pages) for (const one of info) yield fromWire(one);
  }

  /** What it occupies by itself, without its parents. @throws StatusError NotFound */
  async usage(key: string, options?: CallOptions): Promise<{ size: number; inodes: number }> {
    const { size, inodes } = await this.#service.usage({ snapshotter: this.snapshotter, key }, options);
    return { size: Number(size), inodes: Number(inodes) };
  }

  /** Frees what removed snapshots still occupy. @throws StatusError Unimplemented if the snapshotter has no such step */
  async cleanup(options?: CallOptions): Promise<void> {
    await this.#service.cleanup({ snapshotter: this.snapshotter }, options);
  }
}

const kinds: Record<Kind, SnapshotKind> = {
  [Kind.UNKNOWN]: 'unknown',
  [Kind.VIEW]: 'view',
  [Kind.ACTIVE]: 'active',
  [Kind.COMMITTED]: 'committed',
};

function fromWire(info: WireInfo | undefined): SnapshotInfo {
  if (!info) throw internal('the server sent no snapshot info');
  return {
    name: info.name,
    parent: info.parent,
    kind: kinds[info.kind] ?? 'unknown',
    labels: info.labels,
    createdAt: momentFromWire(info.createdAt),
    updatedAt: momentFromWire(info.updatedAt),
  };
}
