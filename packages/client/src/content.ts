import { Readable } from 'node:stream';
import { Code, hasCode, internal, type Time } from '@gantry/api';
import {
  Content as ContentService,
  type Info as WireInfo,
  type Status as WireStatus,
} from '@gantry/api/gen/services/content/v1/content_pb.js';
import type { Descriptor } from '@gantry/oci';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import { ContentWriter } from './content-writer.ts';
import { momentFromWire } from './time.ts';

/** A blob in the content store. */
export interface ContentInfo {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly createdAt: Time | undefined;
  readonly updatedAt: Time | undefined;
}

/** A write under way. */
export interface IngestStatus {
  readonly ref: string;
  /** Bytes that are there. */
  readonly offset: number;
  /** Bytes there will be; 0 if not known. */
  readonly total: number;
  readonly expected: string;
  readonly startedAt: Time | undefined;
  readonly updatedAt: Time | undefined;
}

/** What is known of a blob before it is written. */
export interface IngestOptions {
  /** Bytes; checked at the end. */
  size?: number;
  /** Checked at the end. A blob that is there already is not written again. */
  expected?: string;
  labels?: Record<string, string>;
}

/** The blobs of a namespace. */
export class Content {
  readonly #service: Client<typeof ContentService>;

  constructor(transport: Transport) {
    this.#service = createClient(ContentService, transport);
  }

  /** @throws StatusError NotFound */
  async info(digest: string, options?: CallOptions): Promise<ContentInfo> {
    return fromWire((await this.#service.info({ digest }, options)).info);
  }

  async *list(filters: string[] = [], options?: CallOptions): AsyncGenerator<ContentInfo> {
    for await (const { info } of this.#service.list({ filters }, options)) for (const one of info) yield fromWire(one);
  }

  /** Sets labels; with an empty value a label is removed. Others stay. @throws StatusError NotFound */
  async setLabels(digest: string, labels: Record<string, string>, options?: CallOptions): Promise<ContentInfo> {
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    return fromWire((await this.#service.update({ info: { digest, labels }, updateMask: { paths } }, options)).info);
  }

  /** @throws StatusError NotFound */
  async delete(digest: string, options?: CallOptions): Promise<void> {
    await this.#service.delete({ digest }, options);
  }

  /** The bytes of a blob, or of a part of it, in pieces as they come. @throws StatusError NotFound, OutOfRange */
  async *read(
    digest: string,
    range: { offset?: number; size?: number } = {},
    options?: CallOptions,
  ): AsyncGenerator<Uint8Array> {
    const { offset = 0, size = 0 } = range;
    const pieces = this.#service.read({ digest, offset: BigInt(offset), size: BigInt(size) }, options);
    for await (const { data } of pieces) if (data.length > 0) yield data;
  }

  /** A whole blob; for manifests and other small ones. @throws StatusError NotFound */
  async readAll(digest: string, options?: CallOptions): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for await (const piece of this.read(digest, {}, options)) pieces.push(piece);
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }

  /** A blob as a Node stream. */
  stream(digest: string, range?: { offset?: number; size?: number }, options?: CallOptions): Readable {
    return Readable.from(this.read(digest, range, options), { objectMode: false });
  }

  /**
   * Opens or resumes a write. Only one writer of a `ref` may be open.
   * @throws StatusError AlreadyExists if `expected` is there, Unavailable if another writes that ref
   */
  async writer(ref: string, settings: IngestOptions = {}, options?: CallOptions): Promise<ContentWriter> {
    return ContentWriter.open(this.#service, ref, settings, options);
  }

  /**
   * Writes a blob from its first byte and commits it; a resumed write skips what is there. Succeeds as well if the blob is
   * there already. @returns digest and size
   */
  async ingest(
    ref: string,
    source: Uint8Array | AsyncIterable<Uint8Array>,
    settings: IngestOptions = {},
    options?: CallOptions,
  ): Promise<Pick<Descriptor, 'digest' | 'size'>> {
    if (source instanceof Uint8Array && settings.size === undefined)
      settings = { ...settings, size: source.byteLength };
    let writer: ContentWriter;
    try {
      writer = await this.writer(ref, settings, options);
    } catch (reason) {
      if (!settings.expected || !hasCode(reason, Code.AlreadyExists)) throw reason;
      return { digest: settings.expected, size: settings.size ?? (await this.info(settings.expected, options)).size };
    }
    await using open = writer;
    let skip = open.offset;
    for await (const piece of source instanceof Uint8Array ? [source] : source) {
      const rest = skip > 0 ? piece.subarray(skip) : piece;
      skip = Math.max(0, skip - piece.byteLength);
      if (rest.byteLength > 0) await open.write(rest);
    }
    return open.commit();
  }

  /** @throws StatusError NotFound */
  async status(ref: string, options?: CallOptions): Promise<IngestStatus> {
    return statusFromWire((await this.#service.status({ ref }, options)).status);
  }

  async statuses(filters: string[] = [], options?: CallOptions): Promise<IngestStatus[]> {
    return (await this.#service.listStatuses({ filters }, options)).statuses.map(statusFromWire);
  }

  /** Ends a write and drops its bytes. @throws StatusError NotFound */
  async abort(ref: string, options?: CallOptions): Promise<void> {
    await this.#service.abort({ ref }, options);
  }
}

function fromWire(info: WireInfo | undefined): ContentInfo {
  if (!info) throw internal('the server sent no content info');
  return {
    digest: info.digest,
    size: Number(info.size),
    labels: info.labels,
    createdAt: momentFromWire(info.createdAt),
    updatedAt: momentFromWire(info.updatedAt),
  };
}

function statusFromWire(status: WireStatus | undefined): IngestStatus {
  if (!status) throw internal('the server sent no ingest status');
  return {
    ref: status.ref,
    offset: Number(status.offset),
    total: Number(status.total),
    expected: status.expected,
    startedAt: momentFromWire(status.startedAt),
    updatedAt: momentFromWire(status.updatedAt),
  };
}
