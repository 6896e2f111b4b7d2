import { Code, hasCode } from '@gantry/api';
import { endLeaseKeepingIngests, ownLeaseLabel } from '../leases/lease-records.ts';
import type { LeaseRecord } from '../leases/metadata-leases.ts';
import type { Logger } from '../log/logger.ts';
import type { MetadataSnapshotter } from '../snapshots/metadata-snapshotter.ts';
import type { SnapshotRecord } from '../snapshots/snapshot-record.ts';
import type { Key, MetadataStore } from './metadata-store.ts';
import { keys } from './schema.ts';

/**
 * Drops records of snapshots that their snapshotter does not have: a daemon that died between sealing a snapshot and
 * noting it leaves the record of its active self. Nobody was answered, so nobody counts on it. Runs before the daemon serves.
 */
export async function dropLostSnapshots(
  store: MetadataStore,
  snapshotter: MetadataSnapshotter,
  log: Logger,
): Promise<void> {
  // The daemon does not wait for another process to start. Such a record stays until somebody removes it, which it lets him.
  if (snapshotter.backend.remote) return;
  const present = new Set<string>();
  for await (const { name } of snapshotter.backend.list()) present.add(name);
  const suspects = store.view((tx) => {
    const found: { key: Key; record: SnapshotRecord }[] = [];
    for (const namespace of tx.children(keys.namespaces())) {
      for (const { key, value } of tx.list<SnapshotRecord>(keys.snapshots(namespace, snapshotter.name))) {
        if (!present.has(value.backendKey)) found.push({ key, record: value });
      }
    }
    return found;
  });
  for (const { key, record } of suspects) {
    try {
      await snapshotter.backend.stat(record.backendKey);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) throw error;
      log.warn('record of a snapshot that is not there is dropped', { snapshotter: snapshotter.name, key: key[3] });
      await store.update((tx) => {
        tx.remove(key);
        if (record.parent !== '') tx.remove(keys.snapshotChild(key[1]!, snapshotter.name, record.parent, key[3]!));
      });
    }
  }
}

/**
 * Ends the leases that an earlier daemon held for its own work (transfers) when it died: what they held goes at the next
 * collection, but for ingests, which the next pull takes up. Runs before the daemon serves.
 */
export async function endOwnLeases(store: MetadataStore): Promise<void> {
  const left = store.view((tx) => {
    const found: { namespace: string; id: string }[] = [];
    for (const namespace of tx.children(keys.namespaces())) {
      for (const { key, value } of tx.list<LeaseRecord>(keys.leases(namespace))) {
        if (ownLeaseLabel in value.labels) found.push({ namespace, id: key[2]! });
      }
    }
    return found;
  });
  if (left.length === 0) return;
  await store.update((tx) => {
    for (const { namespace, id } of left) endLeaseKeepingIngests(tx, namespace, id);
  });
}
