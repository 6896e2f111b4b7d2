import type { Time } from '@gantry/api';
import type { RequestContext } from '../request-context.ts';

/** A committed blob as one namespace sees it. */
export interface ContentInfo {
  /** `algorithm:hex`; sha256, sha384 or sha512. */
  digest: string;
  /** Bytes. */
  size: number;
  createdAt: Time;
  updatedAt: Time;
  labels: Record<string, string>;
}

/** An ingest: a write under way, or left over from one that broke, to be resumed under the same ref. */
export interface IngestStatus {
  ref: string;
  /** Bytes received and kept. */
  offset: number;
  /** Expected size in bytes; 0 if not told. */
  total: number;
  /** Expected digest; '' if not told. */
  expected: string;
  startedAt: Time;
  updatedAt: Time;
}

export interface WriterOptions {
  /** Names the ingest within the namespace. A second writer on the same ref gets Unavailable. */
  ref: string;
  /** Expected bytes, 0 or absent if unknown. */
  size?: number;
  /** Expected digest. If the blob is there already, opening fails with AlreadyExists. */
  expected?: string;
}

export interface CommitOptions {
  /** Fails with FailedPrecondition if the bytes written are not this many; 0 or absent: not checked. */
  size?: number;
  /** Fails with FailedPrecondition if the digest differs; absent: whatever it came to. */
  expected?: string;
  labels?: Record<string, string>;
}

/** Holds the lock on its ref until closed. Writes are in order and never overlap: await each before the next. */
export interface ContentWriter {
  /** A local file that holds what has been written so far, for others to read along; absent for remote stores. */
  readonly path?: string | undefined;
  /** What has been written so far, where that is in memory; it changes with the next write. */
  readonly bytes?: Uint8Array | undefined;
  status(): IngestStatus;
  /** Digest of all bytes up to the offset. */
  digest(): Promise<string>;
  /** Appends. The buffer must not be changed until the promise settles. */
  write(chunk: Uint8Array): Promise<void>;
  /** Drops the bytes past `size`; only 0 has to be supported, others may fail with Unimplemented. */
  truncate(size: number): Promise<void>;
  /**
   * Makes the blob visible in the namespace under its digest, durably (fsync of file and folder first), adds it to the
   * lease of the context, and ends the ingest. @throws AlreadyExists if the blob is in the namespace already; the ingest ends then too.
   */
  commit(options?: CommitOptions): Promise<ContentInfo>;
  /** Lets go of the lock. An uncommitted ingest stays, resumable. Safe to call twice. */
  close(): Promise<void>;
}

export interface ContentReader extends AsyncDisposable {
  readonly size: number;
  /** A local file that holds the bytes, for workers to open themselves; absent for remote stores. */
  readonly path?: string | undefined;
  /** Reads up to `length` bytes at `offset`; fewer only at the end. `into`, if it is large enough, may be where they are put. */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** The namespaced content store: what services, differ and transfer use. */
export interface ContentStore {
  /** @throws NotFound `content digest sha256:…: not found` */
  info(ctx: RequestContext, digest: string): Promise<ContentInfo>;
  /** Replaces labels; `paths` as field mask (`labels`, `labels.key`), all mutable fields if empty. */
  update(
    ctx: RequestContext,
    info: { digest: string; labels: Record<string, string> },
    paths: string[],
  ): Promise<ContentInfo>;
  /** By containerd filters (`digest`, `size`, `labels."x"`); any matches; none means all. In order of digest. */
  list(ctx: RequestContext, filters?: string[]): AsyncIterable<ContentInfo>;
  /** Removes the blob from the namespace; the bytes go at the next collection. */
  delete(ctx: RequestContext, digest: string): Promise<void>;
  /** @throws NotFound */
  status(ctx: RequestContext, ref: string): Promise<IngestStatus>;
  listStatuses(ctx: RequestContext, filters?: string[]): Promise<IngestStatus[]>;
  writer(ctx: RequestContext, options: WriterOptions): Promise<ContentWriter>;
  /**
   * A writer that keeps a small blob in memory until its commit: no ingest is recorded, so nobody else sees it come, and it cannot be
   * resumed. undefined where `writer` is to be asked: the blob is not small, is there or has been begun; its digest or size is not known.
   */
  wholeWriter?(ctx: RequestContext, options: WriterOptions): Promise<ContentWriter | undefined>;
  abort(ctx: RequestContext, ref: string): Promise<void>;
  /** @throws NotFound if the namespace does not have it. */
  reader(ctx: RequestContext, digest: string): Promise<ContentReader>;
}

/**
 * What is below the namespaced store: bytes on disk (or behind a proxy), one flat set of blobs and of ingests.
 * The metadata layer maps namespaces and refs onto it and keeps the labels. `ctx` says for whom it is called, if for somebody:
 * those that speak to another process pass it on, others need not look.
 */
export interface ContentBackend {
  /** Runs in another process: it may be away for a while, and it may keep namespaces apart, so `list` is asked for each. */
  readonly remote?: boolean;
  info(
    digest: string,
    ctx?: RequestContext,
  ): Promise<{ digest: string; size: number; createdAt: Time; updatedAt: Time }>;
  list(ctx?: RequestContext): AsyncIterable<{ digest: string; size: number; createdAt: Time; updatedAt: Time }>;
  /** Bytes of a blob, undefined if there is none: where that can be had for less than `info`, of which mostly there is none. */
  size?(digest: string, ctx?: RequestContext): Promise<number | undefined>;
  /** The digests of `list` alone, where they can be had for less. */
  digests?(ctx?: RequestContext): AsyncIterable<string>;
  /** @throws NotFound */
  delete(digest: string, ctx?: RequestContext): Promise<void>;
  status(ref: string, ctx?: RequestContext): Promise<IngestStatus>;
  listStatuses(ctx?: RequestContext): Promise<IngestStatus[]>;
  writer(options: WriterOptions, ctx?: RequestContext): Promise<BackendWriter>;
  /** Makes a small blob visible, durably, in one step; it being there already is well. The bytes have been checked. */
  put?(digest: string, bytes: Uint8Array, ctx?: RequestContext): Promise<void>;
  abort(ref: string, ctx?: RequestContext): Promise<void>;
  reader(digest: string, ctx?: RequestContext): Promise<ContentReader>;
}

export interface BackendWriter extends Omit<ContentWriter, 'commit'> {
  /** A local file that collects the ingest's bytes, so that a worker can write it itself; see `adopt`. */
  readonly path?: string | undefined;
  /**
   * Tells the writer that somebody else (a worker) has written the file `path` up to `offset` bytes, whose digest of the
   * expected algorithm is `digest`.
   */
  adopt?(offset: number, digest: string): void;
  commit(options?: CommitOptions): Promise<{ digest: string; size: number }>;
}
