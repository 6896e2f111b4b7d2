import { Code, fromTimestamp, hasCode, internal } from '@gantry/api';
import { type Info, Kind, Snapshots } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import type { Mount } from '@gantry/mount';
import type { Client } from '@gantry/rpc';
import type { RequestContext } from '../../core/request-context.ts';
import type {
  CommitSnapshotOptions,
  SnapshotInfo,
  SnapshotKind,
  SnapshotOptions,
  Snapshotter,
  SnapshotUsage,
} from '../../core/snapshots/snapshotter.ts';
import type { ProxyConnection } from './proxy-connection.ts';
import { fromWireMounts } from './wire-mounts.ts';

const kinds: Partial<Record<Kind, SnapshotKind>> = {
  [Kind.VIEW]: 'view',
  [Kind.ACTIVE]: 'active',
  [Kind.COMMITTED]: 'committed',
};
const never = { seconds: 0n, nanos: 0 };

/** A snapshotter behind containerd.services.snapshots.v1. */
export class ProxySnapshotter implements Snapshotter {
  readonly remote = true;
  readonly #connection: ProxyConnection;
  readonly #client: Client<typeof Snapshots>;
  readonly #snapshotter: string;

  /** @param name of the snapshotter over there: that of the proxy plugin */
  constructor(connection: ProxyConnection, name: string) {
    this.#connection = connection;
    this.#client = connection.client(Snapshots);
    this.#snapshotter = name;
  }

  async stat(key: string, ctx?: RequestContext): Promise<SnapshotInfo> {
    const { info } = await this.#call(ctx, (client, options) =>
      client.stat({ snapshotter: this.#snapshotter, key }, options),
    );
    return fromWireInfo(info, key);
  }

  async update(
    { name, labels }: { name: string; labels: Record<string, string> },
    paths: string[],
    ctx?: RequestContext,
  ): Promise<SnapshotInfo> {
    const request = {
      snapshotter: this.#snapshotter,
      info: { name, labels },
      ...(paths.length > 0 && { updateMask: { paths } }),
    };
    const { info } = await this.#call(ctx, (client, options) => client.update(request, options));
    return fromWireInfo(info, name);
  }

  async usage(key: string, ctx?: RequestContext): Promise<SnapshotUsage> {
    const { inodes, size } = await this.#call(ctx, (client, options) =>
      client.usage({ snapshotter: this.#snapshotter, key }, options),
    );
    return { inodes: Number(inodes), size: Number(size) };
  }

  async mounts(key: string, ctx?: RequestContext): Promise<Mount[]> {
    const request = { snapshotter: this.#snapshotter, key };
    return fromWireMounts((await this.#call(ctx, (client, options) => client.mounts(request, options))).mounts);
  }

  async prepare(
    key: string,
    parent: string,
    { labels = {} }: SnapshotOptions = {},
    ctx?: RequestContext,
  ): Promise<Mount[]> {
    const request = { snapshotter: this.#snapshotter, key, parent, labels };
    return fromWireMounts((await this.#call(ctx, (client, options) => client.prepare(request, options))).mounts);
  }

  async view(
    key: string,
    parent: string,
    { labels = {} }: SnapshotOptions = {},
    ctx?: RequestContext,
  ): Promise<Mount[]> {
    const request = { snapshotter: this.#snapshotter, key, parent, labels };
    return fromWireMounts((await this.#call(ctx, (client, options) => client.view(request, options))).mounts);
  }

  async commit(
    name: string,
    key: string,
    { labels = {}, parent = '' }: CommitSnapshotOptions = {},
    ctx?: RequestContext,
  ): Promise<void> {
    const request = { snapshotter: this.#snapshotter, name, key, labels, parent };
    await this.#call(ctx, (client, options) => client.commit(request, options));
  }

  async remove(key: string, ctx?: RequestContext): Promise<void> {
    await this.#call(ctx, (client, options) => client.remove({ snapshotter: this.#snapshotter, key }, options));
  }

  async *list(ctx?: RequestContext): AsyncIterable<SnapshotInfo> {
    const answers = this.#client.list({ snapshotter: this.#snapshotter }, this.#connection.options(ctx));
    for await (const { info } of this.#connection.stream(answers)) {
      for (const one of info) yield fromWireInfo(one, one.name);
    }
  }

  /** Not every snapshotter has something to clean up. */
  async cleanup(ctx?: RequestContext): Promise<void> {
    try {
      await this.#call(ctx, (client, options) => client.cleanup({ snapshotter: this.#snapshotter }, options));
    } catch (error) {
      if (!hasCode(error, Code.Unimplemented)) throw error;
    }
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  #call<T>(
    ctx: RequestContext | undefined,
    fn: (client: Client<typeof Snapshots>, options: ReturnType<ProxyConnection['options']>) => Promise<T>,
  ): Promise<T> {
    return this.#connection.call(fn(this.#client, this.#connection.options(ctx)));
  }
}

function fromWireInfo(info: Info | undefined, key: string): SnapshotInfo {
  const kind = info && kinds[info.kind];
  if (!kind) throw internal(`the answer about snapshot ${key} does not say what kind it is`);
  const { name, parent, labels } = info;
  const createdAt = fromTimestamp(info.createdAt) ?? never;
  return {
    kind,
    name,
    parent,
    labels: { ...labels },
    createdAt,
    updatedAt: fromTimestamp(info.updatedAt) ?? createdAt,
  };
}
