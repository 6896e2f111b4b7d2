import { fromMillis, notFound, now, type Time, toMillis } from '@gantry/api';
import type { IngestRecord } from '../content/content-records.ts';
import type { ReadTransaction, WriteTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { RequestContext } from '../request-context.ts';

/** Resource types as leases name them. */
export const ResourceType = {
  content: 'content',
  ingest: 'ingests',
  image: 'images',
  mount: 'mounts',
  snapshot: (snapshotter: string): string => `snapshots/${snapshotter}`,
} as const;

/** Adds a resource to the lease of the context, if there is one. True if there is. @throws NotFound `lease "x": not found` */
export function addToLease(tx: WriteTransaction, ctx: RequestContext, type: string, id: string): boolean {
  if (!ctx.lease) return false;
  if (!tx.has(keys.lease(ctx.namespace, ctx.lease))) throw notFound(`lease "${ctx.lease}": not found`);
  tx.put(keys.leaseResource(ctx.namespace, ctx.lease, type, id), {});
  return true;
}

/** Takes a resource out of the lease of the context, if it has one. */
export function removeFromLease(tx: WriteTransaction, ctx: RequestContext, type: string, id: string): void {
  if (ctx.lease) tx.remove(keys.leaseResource(ctx.namespace, ctx.lease, type, id));
}

/** The resources of a lease. */
export function* leaseResources(
  tx: ReadTransaction,
  namespace: string,
  lease: string,
): Iterable<{ type: string; id: string }> {
  for (const { key } of tx.list(keys.leaseResources(namespace, lease))) yield { type: key[3]!, id: key[4]! };
}

/** Marks a lease that the daemon made for itself: it ends with the work it was made for, or with the daemon. */
export const ownLeaseLabel = 'gantry.io/lease.of';
const ingestLifetimeMs = 24 * 3_600_000;

/** When an ingest that nothing holds may be collected. */
export function ingestExpiry(): Time {
  return fromMillis(toMillis(now()) + ingestLifetimeMs);
}

/** Ends a lease; the ingests it held stay for a day if their digest is known, so that broken work can be taken up again. */
export function endLeaseKeepingIngests(tx: WriteTransaction, namespace: string, lease: string): void {
  for (const { type, id } of [...leaseResources(tx, namespace, lease)]) {
    const key = keys.ingest(namespace, id);
    const ingest = type === ResourceType.ingest ? tx.get<IngestRecord>(key) : undefined;
    // Of one whose end nobody knows, nobody can tell that it is the same.
    if (!ingest || ingest.expected === '') continue;
    tx.put(key, { ...ingest, expiresAt: ingestExpiry() } satisfies IngestRecord);
  }
  tx.remove(keys.lease(namespace, lease));
  tx.removeAll(keys.leaseResources(namespace, lease));
}
