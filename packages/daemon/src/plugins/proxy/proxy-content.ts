import { fromTimestamp, internal, type Time } from '@gantry/api';
import { Content, type Info, type Status } from '@gantry/api/gen/services/content/v1/content_pb.js';
import type { Client } from '@gantry/rpc';
import type {
  BackendWriter,
  ContentBackend,
  ContentReader,
  IngestStatus,
  WriterOptions,
} from '../../core/content/content-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { validateDigest } from '../../core/validation/digest.ts';
import type { ProxyConnection } from './proxy-connection.ts';
import { ProxyReader } from './proxy-reader.ts';
import { ProxyWriter } from './proxy-writer.ts';

interface BlobInfo {
  digest: string;
  size: number;
  createdAt: Time;
  updatedAt: Time;
}

const never = { seconds: 0n, nanos: 0 };

/** Content behind containerd.services.content.v1. What this daemon keeps there is its own: it deletes what it does not know. */
export class ProxyContent implements ContentBackend {
  readonly remote = true;
  readonly #connection: ProxyConnection;
  readonly #client: Client<typeof Content>;

  constructor(connection: ProxyConnection) {
    this.#connection = connection;
    this.#client = connection.client(Content);
  }

  async info(digest: string, ctx?: RequestContext): Promise<BlobInfo> {
    validateDigest(digest);
    const { info } = await this.#connection.call(this.#client.info({ digest }, this.#connection.options(ctx)));
    if (!info) throw internal(`the answer about content ${digest} is empty`);
    return fromWireInfo(info);
  }

  async *list(ctx?: RequestContext): AsyncIterable<BlobInfo> {
    for await (const { info } of this.#connection.stream(this.#client.list({}, this.#connection.options(ctx)))) {
      yield* info.map(fromWireInfo);
    }
  }

  async delete(digest: string, ctx?: RequestContext): Promise<void> {
    validateDigest(digest);
    await this.#connection.call(this.#client.delete({ digest }, this.#connection.options(ctx)));
  }

  async status(ref: string, ctx?: RequestContext): Promise<IngestStatus> {
    const { status } = await this.#connection.call(this.#client.status({ ref }, this.#connection.options(ctx)));
    if (!status) throw internal(`the answer about ingest ${ref} is empty`);
    return fromWireStatus(status);
  }

  async listStatuses(ctx?: RequestContext): Promise<IngestStatus[]> {
    const { statuses } = await this.#connection.call(this.#client.listStatuses({}, this.#connection.options(ctx)));
    return statuses.map(fromWireStatus);
  }

  writer(options: WriterOptions, ctx?: RequestContext): Promise<BackendWriter> {
    return ProxyWriter.open(this.#connection, this.#client, options, ctx);
  }

  async abort(ref: string, ctx?: RequestContext): Promise<void> {
    await this.#connection.call(this.#client.abort({ ref }, this.#connection.options(ctx)));
  }

  async reader(digest: string, ctx?: RequestContext): Promise<ContentReader> {
    const { size } = await this.info(digest, ctx);
    return ProxyReader.open(this.#connection, this.#client, digest, size, ctx);
  }
}

function fromWireInfo({ digest, size, ...info }: Info): BlobInfo {
  const createdAt = fromTimestamp(info.createdAt) ?? never;
  return { digest, size: Number(size), createdAt, updatedAt: fromTimestamp(info.updatedAt) ?? createdAt };
}

function fromWireStatus({ ref, offset, total, expected, ...status }: Status): IngestStatus {
  const startedAt = fromTimestamp(status.startedAt) ?? never;
  const updatedAt = fromTimestamp(status.updatedAt) ?? startedAt;
  return { ref, offset: Number(offset), total: Number(total), expected, startedAt, updatedAt };
}
