import { alreadyExists, Code, failedPrecondition, hasCode, notFound, now } from '@gantry/api';
import { ContentCreateSchema, ContentDeleteSchema } from '@gantry/api/gen/events/content_pb.js';
import type { EventExchange } from '../events/exchange.ts';
import { contentLookup } from '../filters/lookups.ts';
import { parseFilters } from '../filters/parse-filters.ts';
import { addToLease, ingestExpiry, ResourceType, removeFromLease } from '../leases/lease-records.ts';
import { applyLabelMask } from '../metadata/label-mask.ts';
import type { MetadataStore, ReadTransaction, WriteTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { NamespaceStore } from '../namespaces/namespace-store.ts';
import type { RequestContext } from '../request-context.ts';
import { validateDigest } from '../validation/digest.ts';
import { validateLabels } from '../validation/labels.ts';
import type { BlobRecord, IngestRecord } from './content-records.ts';
import type {
  BackendWriter,
  CommitOptions,
  ContentBackend,
  ContentInfo,
  ContentReader,
  ContentStore,
  ContentWriter,
  IngestStatus,
  WriterOptions,
} from './content-store.ts';
import type { KeyedLock } from './keyed-lock.ts';
import { WholeWriter } from './whole-writer.ts';

/** Bytes of blobs that are kept in memory until they are whole. */
const wholeLimit = 64 << 10;

/** The label of a namespace whose content others may share under the `isolated` policy. */
const shareableLabel = 'containerd.io/namespace.shareable';

export interface MetadataContentSettings {
  store: MetadataStore;
  backend: ContentBackend;
  namespaces: Pick<NamespaceStore, 'ensure'>;
  events: EventExchange;
  /** `shared`: a blob that any namespace has can be had by naming its digest; `isolated`: its bytes must be brought. */
  policy: 'shared' | 'isolated';
  /** Held for a digest while its blob is committed or collected, so that neither sees the other half done. */
  locks: KeyedLock;
  mutated(deletion: boolean): void;
}

/** Content as namespaces see it: records over a backend that knows digests and unique refs only. */
export class MetadataContentStore implements ContentStore {
  readonly #settings: MetadataContentSettings;

  constructor(settings: MetadataContentSettings) {
    this.#settings = settings;
  }

  async info(ctx: RequestContext, digest: string): Promise<ContentInfo> {
    validateDigest(digest);
    const record = this.#settings.store.view((tx) => tx.get<BlobRecord>(keys.blob(ctx.namespace, digest)));
    if (!record) throw missing(digest);
    return { digest, ...record };
  }

  async update(
    ctx: RequestContext,
    info: { digest: string; labels: Record<string, string> },
    paths: string[],
  ): Promise<ContentInfo> {
    validateDigest(info.digest);
    const { store, mutated } = this.#settings;
    const result = await store.update((tx) => {
      const record = tx.get<BlobRecord>(keys.blob(ctx.namespace, info.digest));
      if (!record) throw missing(info.digest);
      record.labels = applyLabelMask(record.labels, info.labels, paths, `content info ${info.digest}`);
      validateLabels(record.labels);
      record.updatedAt = now();
      tx.put(keys.blob(ctx.namespace, info.digest), record);
      return { digest: info.digest, ...record };
    }, ctx);
    mutated(false);
    return result;
  }

  async *list(ctx: RequestContext, filters: string[] = []): AsyncIterable<ContentInfo> {
    const filter = parseFilters(filters);
    const infos = this.#settings.store.view((tx) => {
      const found: ContentInfo[] = [];
      for (const { key, value } of tx.list<BlobRecord>(keys.blobs(ctx.namespace))) {
        const info = { digest: key[2]!, ...value };
        if (filter.matches(contentLookup(info))) found.push(info);
      }
      return found;
    });
    yield* infos;
  }

  async delete(ctx: RequestContext, digest: string): Promise<void> {
    validateDigest(digest);
    const { store, events, mutated } = this.#settings;
    await store.update((tx) => {
      if (!tx.remove(keys.blob(ctx.namespace, digest))) throw missing(digest);
      removeFromLease(tx, ctx, ResourceType.content, digest);
      tx.afterCommit(() => events.publishMessage(ctx.namespace, '/content/delete', ContentDeleteSchema, { digest }));
    });
    mutated(true);
  }

  async status(ctx: RequestContext, ref: string): Promise<IngestStatus> {
    const record = this.#settings.store.view((tx) => tx.get<IngestRecord>(keys.ingest(ctx.namespace, ref)));
    if (!record) throw notFound(`reference ${ref}: not found`);
    return this.#statusOf(ctx, ref, record);
  }

  async #statusOf(ctx: RequestContext, ref: string, record: IngestRecord): Promise<IngestStatus> {
    if (record.shared) {
      const { startedAt, total, expected } = record;
      return { ref, offset: total, total, expected, startedAt, updatedAt: startedAt };
    }
    const status = await this.#settings.backend.status(record.backendRef, ctx);
    return { ...status, ref, expected: record.expected, total: record.total || status.total };
  }

  async listStatuses(ctx: RequestContext, filters: string[] = []): Promise<IngestStatus[]> {
    const filter = parseFilters(filters);
    const records = this.#settings.store.view((tx) =>
      [...tx.list<IngestRecord>(keys.ingests(ctx.namespace))].map(({ key, value }) => ({
        ref: key[2]!,
        record: value,
      })),
    );
    const statuses: IngestStatus[] = [];
    for (const { ref, record } of records) {
      if (!filter.matches((path) => (path.length === 1 && path[0] === 'ref' ? ref : undefined))) continue;
      try {
        statuses.push(await this.#statusOf(ctx, ref, record));
      } catch (error) {
        // Recorded, but nothing written yet, or ended while we looked.
        if (!hasCode(error, Code.NotFound)) throw error;
      }
    }
    return statuses;
  }

  async writer(ctx: RequestContext, options: WriterOptions): Promise<ContentWriter> {
    const { backend, locks } = this.#settings;
    const expected = options.expected ?? '';
    if (expected !== '') validateDigest(expected);
    const record =
      expected === ''
        ? await this.#openIngest(ctx, options, undefined)
        : // Nobody may collect the blob between the look at the backend and the record that counts on it.
          await locks.run(expected, async () => this.#openIngest(ctx, options, await this.#presentSize(ctx, expected)));
    if (!record) throw alreadyExists(`content ${expected}: already exists`);
    // The digest is not handed down: another namespace may have the blob already, which is no reason not to write.
    const open = (): Promise<BackendWriter> => backend.writer({ ref: record.backendRef, size: record.total }, ctx);
    const inner = record.shared ? undefined : await open();
    return new NamespacedWriter(this.#settings, ctx, options.ref, record, inner, open);
  }

  async wholeWriter(ctx: RequestContext, options: WriterOptions): Promise<ContentWriter | undefined> {
    const { store, backend, locks } = this.#settings;
    const { ref, size = 0, expected = '' } = options;
    if (!backend.put || expected === '' || size <= 0 || size > wholeLimit) return undefined;
    validateDigest(expected);
    const begun = store.view(
      (tx) => tx.has(keys.blob(ctx.namespace, expected)) || tx.has(keys.ingest(ctx.namespace, ref)),
    );
    if (begun || (await this.#presentSize(ctx, expected)) !== undefined) return undefined;
    const commit = (bytes: Uint8Array, labels: Record<string, string>): Promise<ContentInfo> =>
      locks.run(expected, async () => {
        await backend.put!(expected, bytes, ctx);
        return await recordBlob(this.#settings, ctx, expected, bytes.length, labels);
      });
    return new WholeWriter({ ref, size, expected }, commit);
  }

  /** Bytes of a blob in the backend, in whatever namespace; undefined if it is not there. */
  async #presentSize(ctx: RequestContext, digest: string): Promise<number | undefined> {
    const { backend } = this.#settings;
    if (backend.size) return await backend.size(digest, ctx);
    try {
      return (await backend.info(digest, ctx)).size;
    } catch (error) {
      if (hasCode(error, Code.NotFound)) return undefined;
      throw error;
    }
  }

  /** Records an ingest. Undefined if the namespace has the blob already: then that is what the lease holds from now on. */
  #openIngest(
    ctx: RequestContext,
    options: WriterOptions,
    presentSize: number | undefined,
  ): Promise<IngestRecord | undefined> {
    const { store, policy, namespaces } = this.#settings;
    const expected = options.expected ?? '';
    return store.update((tx): IngestRecord | undefined => {
      if (expected !== '' && tx.has(keys.blob(ctx.namespace, expected))) {
        addToLease(tx, ctx, ResourceType.content, expected);
        return undefined;
      }
      const shared =
        presentSize !== undefined &&
        (!options.size || options.size === presentSize) &&
        (policy === 'shared' || isShareable(tx, expected));
      namespaces.ensure(tx, ctx.namespace);
      const key = keys.ingest(ctx.namespace, options.ref);
      const before = tx.get<IngestRecord>(key);
      const leased = addToLease(tx, ctx, ResourceType.ingest, options.ref);
      const next: IngestRecord = {
        backendRef: before?.backendRef ?? `${ctx.namespace}/${nextNumber(tx, 'ingest')}/${options.ref}`,
        expected,
        total: shared ? presentSize : (options.size ?? before?.total ?? 0),
        startedAt: before?.startedAt ?? now(),
        shared,
        ...(leased ? {} : { expiresAt: ingestExpiry() }),
      };
      tx.put(key, next);
      return next;
    }, ctx);
  }

  async abort(ctx: RequestContext, ref: string): Promise<void> {
    const { store, backend } = this.#settings;
    const record = await store.update((tx) => {
      const found = tx.get<IngestRecord>(keys.ingest(ctx.namespace, ref));
      if (!found) throw notFound(`reference ${ref}: not found`);
      removeFromLease(tx, ctx, ResourceType.ingest, ref);
      tx.remove(keys.ingest(ctx.namespace, ref));
      return found;
    });
    if (record.shared) return;
    await backend.abort(record.backendRef, ctx).catch((error) => {
      if (!hasCode(error, Code.NotFound)) throw error;
    });
  }

  async reader(ctx: RequestContext, digest: string): Promise<ContentReader> {
    validateDigest(digest);
    if (!this.#settings.store.view((tx) => tx.has(keys.blob(ctx.namespace, digest)))) throw missing(digest);
    return this.#settings.backend.reader(digest, ctx);
  }
}

/** A writer of one namespace. With a shared blob nothing has to be written; if the client writes all the same, it writes for real. */
class NamespacedWriter implements ContentWriter {
  readonly #settings: MetadataContentSettings;
  readonly #ctx: RequestContext;
  readonly #ref: string;
  readonly #record: IngestRecord;
  readonly #open: () => Promise<BackendWriter>;
  #inner: BackendWriter | undefined;

  constructor(
    settings: MetadataContentSettings,
    ctx: RequestContext,
    ref: string,
    record: IngestRecord,
    inner: BackendWriter | undefined,
    open: () => Promise<BackendWriter>,
  ) {
    this.#settings = settings;
    this.#ctx = ctx;
    this.#ref = ref;
    this.#record = record;
    this.#inner = inner;
    this.#open = open;
  }

  status(): IngestStatus {
    const { startedAt, total, expected } = this.#record;
    if (!this.#inner) return { ref: this.#ref, offset: total, total, expected, startedAt, updatedAt: startedAt };
    const status = this.#inner.status();
    return { ...status, ref: this.#ref, expected, total: total || status.total };
  }

  /** Where a worker may write the bytes itself; see BackendWriter. */
  get path(): string | undefined {
    return this.#inner?.path;
  }

  adopt(offset: number, digest: string): void {
    this.#inner?.adopt?.(offset, digest);
  }

  async digest(): Promise<string> {
    return this.#inner ? this.#inner.digest() : this.#record.expected;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#inner ??= await this.#takeCopy();
    await this.#inner.write(chunk);
  }

  /** Goes from the shared blob to an ingest of our own with the same bytes, to be written on. */
  async #takeCopy(): Promise<BackendWriter> {
    const writer = await this.#open();
    await using reader = await this.#settings.backend.reader(this.#record.expected, this.#ctx);
    for (let offset = writer.status().offset; offset < reader.size; ) {
      const bytes = await reader.read(offset, 1 << 20);
      await writer.write(bytes);
      offset += bytes.length;
    }
    return writer;
  }

  async truncate(size: number): Promise<void> {
    if (!this.#inner) this.#inner = await this.#open();
    await this.#inner.truncate(size);
  }

  async commit(options: CommitOptions = {}): Promise<ContentInfo> {
    validateLabels(options.labels ?? {});
    const digest = options.expected || (await this.digest());
    return this.#settings.locks.run(digest, () => this.#commitLocked(digest, options));
  }

  async #commitLocked(digest: string, options: CommitOptions): Promise<ContentInfo> {
    const { backend } = this.#settings;
    const ctx = this.#ctx;
    const size = await this.#commitBytes(digest, options);
    try {
      return await recordBlob(this.#settings, ctx, digest, size, options.labels ?? {}, (tx) => {
        tx.remove(keys.ingest(ctx.namespace, this.#ref));
        removeFromLease(tx, ctx, ResourceType.ingest, this.#ref);
      });
    } finally {
      if (!this.#inner) await backend.abort(this.#record.backendRef, ctx).catch(ignoreNotFound);
    }
  }

  /** Has the backend seal the bytes; a blob that it has already is as good. Answers the size. */
  async #commitBytes(digest: string, options: CommitOptions): Promise<number> {
    if (!this.#inner) {
      if (options.size && options.size !== this.#record.total) {
        throw failedPrecondition(
          `${this.#ref} failed size validation: ${this.#record.total} != ${options.size}: failed precondition`,
        );
      }
      if (digest !== this.#record.expected) {
        throw failedPrecondition(
          `${this.#ref} failed digest validation: ${this.#record.expected} != ${digest}: failed precondition`,
        );
      }
      return (await this.#settings.backend.info(digest, this.#ctx)).size;
    }
    try {
      const { size } = await this.#inner.commit({
        ...(options.size ? { size: options.size } : {}),
        ...(options.expected ? { expected: options.expected } : {}),
      });
      return size;
    } catch (error) {
      if (!hasCode(error, Code.AlreadyExists)) throw error;
      return (await this.#settings.backend.info(digest, this.#ctx)).size;
    }
  }

  async close(): Promise<void> {
    await this.#inner?.close();
  }
}

/**
 * Records a blob that the backend has. `first` is done in the same transaction, whether it is new or not.
 * @throws AlreadyExists if the namespace has it, which the lease holds from now on
 */
async function recordBlob(
  { store, namespaces, events, mutated }: MetadataContentSettings,
  ctx: RequestContext,
  digest: string,
  size: number,
  labels: Record<string, string>,
  first?: (tx: WriteTransaction) => void,
): Promise<ContentInfo> {
  const info = await store.update((tx) => {
    first?.(tx);
    addToLease(tx, ctx, ResourceType.content, digest);
    const key = keys.blob(ctx.namespace, digest);
    if (tx.has(key)) return undefined;
    namespaces.ensure(tx, ctx.namespace);
    const at = now();
    const record: BlobRecord = { size, createdAt: at, updatedAt: at, labels };
    tx.put(key, record);
    tx.afterCommit(() =>
      events.publishMessage(ctx.namespace, '/content/create', ContentCreateSchema, { digest, size: BigInt(size) }),
    );
    return { digest, ...record };
  }, ctx);
  // The ingest has ended either way; that the blob was there already is for the caller to know.
  if (!info) throw alreadyExists(`content ${digest}: already exists`);
  mutated(false);
  return info;
}

function isShareable(tx: ReadTransaction, digest: string): boolean {
  for (const name of tx.children(keys.namespaces())) {
    const labels = tx.get<{ labels: Record<string, string> }>(keys.namespace(name))?.labels;
    if (labels?.[shareableLabel] === 'true' && tx.has(keys.blob(name, digest))) return true;
  }
  return false;
}

/** The next number of a sequence, never given twice. */
export function nextNumber(tx: WriteTransaction, sequence: string): number {
  const number = (tx.get<number>(keys.sequence(sequence)) ?? 0) + 1;
  tx.put(keys.sequence(sequence), number);
  return number;
}

function missing(digest: string): Error {
  return notFound(`content digest ${digest}: not found`);
}

function ignoreNotFound(error: unknown): void {
  if (!hasCode(error, Code.NotFound)) throw error;
}
