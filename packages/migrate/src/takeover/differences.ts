// What this daemon has and containerd does not, and the other way round.
import type { ContainerRecord } from '@gantry/daemon/core/containers/metadata-containers.ts';
import type { ImageRecord } from '@gantry/daemon/core/images/metadata-images.ts';
import type { Key, ReadTransaction, Value } from '@gantry/daemon/core/metadata/metadata-store.ts';
import { keys } from '@gantry/daemon/core/metadata/schema.ts';
import type { ContainerdMetadata } from '../containerd/records.ts';
import type { OwnTask } from './take-tasks.ts';

export interface Difference {
  kind: 'namespace' | 'image' | 'container' | 'content' | 'snapshot' | 'lease' | 'sandbox' | 'task';
  namespace: string;
  name: string;
  /** `made`: here only; `changed`: in both, not the same; `gone`: removed here, so containerd has it back. */
  how: 'made' | 'changed' | 'gone';
}

type Named = Pick<Difference, 'kind' | 'namespace' | 'name'> & { value: unknown };

export function differences(
  tx: ReadTransaction,
  theirs: ContainerdMetadata,
  tasks: readonly OwnTask[],
  ended: readonly { namespace: string; id: string }[],
): Difference[] {
  const here = new Map([...ours(tx)].map((one) => [keyOf(one), one]));
  const there = new Map([...containerds(theirs)].map((one) => [keyOf(one), one]));
  const found: Difference[] = [];
  const note = ({ kind, namespace, name }: Named, how: Difference['how']) => found.push({ kind, namespace, name, how });
  for (const [key, one] of here) {
    const other = there.get(key);
    if (!other) note(one, 'made');
    else if (other.value !== one.value) note(one, 'changed');
  }
  for (const [key, one] of there) if (!here.has(key)) note(one, 'gone');
  for (const { namespace, id, taken } of tasks)
    if (!taken) found.push({ kind: 'task', namespace, name: id, how: 'made' });
  for (const { namespace, id } of ended) found.push({ kind: 'task', namespace, name: id, how: 'gone' });
  return found;
}

const keyOf = ({ kind, namespace, name }: Named) => JSON.stringify([kind, namespace, name]);

const text = (labels: Record<string, string>) => JSON.stringify(Object.entries(labels).sort());

function* ours(tx: ReadTransaction): Generator<Named> {
  function* list(
    kind: Named['kind'],
    namespace: string,
    prefix: Key,
    name: (key: Key) => string,
    value: (record: never) => unknown = () => undefined,
  ): Generator<Named> {
    for (const { key, value: record } of tx.list<Value>(prefix))
      yield { kind, namespace, name: name(key), value: value(record as never) };
  }
  for (const ns of tx.children(keys.namespaces())) {
    yield { kind: 'namespace', namespace: ns, name: ns, value: undefined };
    yield* list(
      'image',
      ns,
      keys.images(ns),
      (key) => key[2]!,
      ({ target, labels }: ImageRecord) => {
        return `${target.digest} ${text(labels)}`;
      },
    );
    yield* list(
      'container',
      ns,
      keys.containers(ns),
      (key) => key[2]!,
      (record: ContainerRecord) => {
        return `${record.image} ${record.snapshotter} ${record.snapshotKey} ${text(record.labels)}`;
      },
    );
    yield* list('content', ns, keys.blobs(ns), (key) => key[2]!);
    yield* list('snapshot', ns, keys.snapshotsOf(ns), (key) => `${key[3]!} of ${key[2]!}`);
    yield* list('lease', ns, keys.leases(ns), (key) => key[2]!);
    yield* list('sandbox', ns, keys.sandboxes(ns), (key) => key[2]!);
  }
}

function* containerds(metadata: ContainerdMetadata): Generator<Named> {
  for (const { name: namespace, ...records } of metadata.namespaces) {
    const named = (kind: Named['kind'], name: string, value?: string): Named => ({ kind, namespace, name, value });
    yield named('namespace', namespace);
    for (const { name, target, labels } of records.images)
      yield named('image', name, `${target.digest} ${text(labels)}`);
    for (const one of records.containers)
      yield named('container', one.id, `${one.image} ${one.snapshotter} ${one.snapshotKey} ${text(one.labels)}`);
    for (const { digest } of records.content) yield named('content', digest);
    for (const { key, snapshotter } of records.snapshots) yield named('snapshot', `${key} of ${snapshotter}`);
    for (const { id } of records.leases) yield named('lease', id);
    for (const { id } of records.sandboxes) yield named('sandbox', id);
  }
}
