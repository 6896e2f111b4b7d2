import type { PlatformMatcher } from '@gantry/oci';
import type { CredentialsProvider, TokenCache } from '@gantry/registry';
import type { ContentStore } from '../../core/content/content-store.ts';
import type { KeyedLock } from '../../core/content/keyed-lock.ts';
import type { Differ } from '../../core/diff/differ.ts';
import type { ImageStore } from '../../core/images/image-store.ts';
import type { LeaseManager } from '../../core/leases/lease-manager.ts';
import { ownLeaseLabel } from '../../core/leases/lease-records.ts';
import type { Logger } from '../../core/log/logger.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { SnapshotterRegistry } from '../../core/snapshots/snapshot-service.ts';
import type { StreamManager } from '../../core/streaming/stream-manager.ts';
import type { ImageVerifier } from '../../core/verification/image-verifier.ts';
import type { Semaphore } from './semaphore.ts';

/** Platforms and a snapshotter that images may be unpacked for. */
export interface UnpackSupport {
  matcher: PlatformMatcher;
  /** Absent: every snapshotter there is. */
  snapshotter?: string | undefined;
  /** Media type of image configurations it is for; absent: those of OCI and Docker. */
  configType?: string | undefined;
  /** Media types that count as layers besides those of OCI and Docker. */
  layerTypes?: readonly string[] | undefined;
  /** Asked in order until one knows the layer's type. */
  differs: readonly Differ[];
}

/** What all transfers of the daemon share. */
export interface TransferEnvironment {
  content: ContentStore;
  images: ImageStore;
  leases: LeaseManager;
  snapshotters: SnapshotterRegistry;
  streams: StreamManager;
  /** Asked for logins that the client has not given. */
  credentials?: CredentialsProvider | undefined;
  verifiers: ReadonlyMap<string, ImageVerifier>;
  unpackSupport: readonly UnpackSupport[];
  /** What the snapshotter's plugin declares. */
  snapshotterMeta(name: string): { exports: Record<string, string>; capabilities: readonly string[] };
  downloads: Semaphore;
  uploads: Semaphore;
  unpacks: Semaphore;
  /** Layers longer than `buffer` bytes are asked for in ranges of it, so many at once; 512 or less: whole. */
  layerFetch: { buffer: number; concurrency: number };
  /** Layers of one image may be unpacked side by side, where the snapshotter can put them together afterwards. */
  parallelUnpack: boolean;
  /** `config_path`; '' for none. */
  hostsDirectory: string;
  /** Registry tokens, shared by all transfers. */
  tokens: TokenCache;
  /** One transfer at a time unpacks a given chain of layers. */
  chains: KeyedLock;
  /** One transfer at a time brings a given blob; those that wait find it there. */
  fetches: KeyedLock;
  log: Logger;
}

const leaseLifetime = 24 * 3600 * 1000;

/**
 * Runs work whose results nothing refers to until its end under a lease: the caller's, or one of its own that ends by
 * itself if the daemon dies meanwhile.
 */
export async function withLease<T>(
  ctx: RequestContext,
  leases: LeaseManager,
  work: (ctx: RequestContext) => Promise<T>,
): Promise<T> {
  if (ctx.lease !== undefined && ctx.lease !== '') return await work(ctx);
  const id = `${process.hrtime.bigint() % 1_000_000_000n}-${randomPart()}`;
  const expires = new Date(Date.now() + leaseLifetime).toISOString().replace(/\.\d+Z$/, 'Z');
  await leases.create(ctx, { id, labels: { 'containerd.io/gc.expire': expires, [ownLeaseLabel]: 'transfer' } });
  try {
    return await work({ ...ctx, lease: id });
  } finally {
    // A transfer that broke off is taken up by the next one where its downloads stopped.
    await leases.delete({ ...ctx, signal: undefined }, id, { keepIngests: true });
  }
}

/** Four characters of base64url, as containerd puts behind a time to make a key unique. */
export function randomPart(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(3))).toString('base64url');
}
