import type { Time } from '@gantry/api';
import type { ActiveMount, Mount } from '@gantry/mount';
import { ResourceType } from '../leases/lease-records.ts';
import type { ReadTransaction, WriteTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { Activation } from './mount-manager.ts';

/** An activation as the metadata have it. */
export interface ActivationRecord {
  /** Number of its directory; never given twice. */
  id: number;
  /** False from before its first mount until all are there: what a killed daemon leaves so is undone at the next start. */
  complete: boolean;
  /** Of a call of one daemon: kept while that lives, undone by the next. */
  transient: boolean;
  lease: string;
  labels: Record<string, string>;
  createdAt: Time;
  active: ActiveMount[];
  system: Mount[];
}

export function activationOf(name: string, record: ActivationRecord): Activation {
  return { name, active: record.active, system: record.system, labels: record.labels };
}

/** Takes an activation out of the records and out of its lease. */
export function removeActivation(
  tx: WriteTransaction,
  namespace: string,
  name: string,
  record: ActivationRecord,
): void {
  tx.remove(keys.mount(namespace, name));
  if (record.lease) tx.remove(keys.leaseResource(namespace, record.lease, ResourceType.mount, name));
}

/** The activations of all namespaces. */
export function* allActivations(
  tx: ReadTransaction,
): Iterable<{ namespace: string; name: string; record: ActivationRecord }> {
  for (const namespace of [...tx.children(['mount'])]) {
    for (const { key, value } of tx.list<ActivationRecord>(keys.mounts(namespace))) {
      yield { namespace, name: key[2]!, record: value };
    }
  }
}
