import { now, toMillis } from '@gantry/api';
import type { ContainerRecord } from '../containers/metadata-containers.ts';
import type { BlobRecord, IngestRecord } from '../content/content-records.ts';
import type { ImageRecord } from '../images/metadata-images.ts';
import { leaseResources } from '../leases/lease-records.ts';
import type { LeaseRecord } from '../leases/metadata-leases.ts';
import type { ReadTransaction, WriteTransaction } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import { type ActivationRecord, removeActivation } from '../mounts/activation-records.ts';
import type { SnapshotRecord } from '../snapshots/snapshot-record.ts';
import {
  backReferences,
  conditionalReferences,
  isExpired,
  isFlat,
  isKeptForNow,
  isRoot,
  type Node,
  node,
  references,
} from './labels.ts';

/** What one sweep took out of the records of all namespaces. */
export interface Swept {
  content: { namespace: string; digest: string }[];
  snapshots: { namespace: string; snapshotter: string; key: string }[];
  ingests: { namespace: string; ref: string }[];
  images: { namespace: string; name: string }[];
  leases: { namespace: string; id: string }[];
  mounts: { namespace: string; name: string }[];
}

/**
 * Marks and sweeps the records of every namespace inside one write transaction: no writer runs beside it, so a reference
 * is never missed and a leased resource never lost. The bytes behind the records are the next step's.
 */
export function markAndSweep(tx: WriteTransaction): Swept {
  const swept: Swept = { content: [], snapshots: [], ingests: [], images: [], leases: [], mounts: [] };
  for (const namespace of [...tx.children(keys.namespaces())]) new Collection(tx, namespace, swept).run();
  return swept;
}

class Collection {
  readonly #tx: WriteTransaction;
  readonly #namespace: string;
  readonly #swept: Swept;
  readonly #at = now();
  readonly #blobs = new Map<string, BlobRecord>();
  readonly #snapshots = new Map<Node, { snapshotter: string; key: string; record: SnapshotRecord }>();
  readonly #images = new Map<string, ImageRecord>();
  readonly #ingests = new Map<string, IngestRecord>();
  readonly #mounts = new Map<string, ActivationRecord>();
  /** Edges drawn from elsewhere: by back references and by conditions that hold. */
  readonly #extra = new Map<Node, Node[]>();
  readonly #marked = new Set<Node>();
  readonly #gray: Node[] = [];
  /** Held by flat leases: kept, but not followed. */
  readonly #flat = new Set<Node>();

  constructor(tx: WriteTransaction, namespace: string, swept: Swept) {
    this.#tx = tx;
    this.#namespace = namespace;
    this.#swept = swept;
  }

  run(): void {
    this.#load();
    this.#roots();
    for (let next = this.#gray.pop(); next !== undefined; next = this.#gray.pop()) {
      for (const target of this.#edges(next)) this.#mark(target);
    }
    this.#sweep();
  }

  #load(): void {
    const tx: ReadTransaction = this.#tx;
    for (const { key, value } of tx.list<SnapshotRecord>(keys.snapshotsOf(this.#namespace))) {
      const [, , snapshotter, name] = key as [string, string, string, string];
      this.#snapshots.set(node.snapshot(snapshotter, name), { snapshotter, key: name, record: value });
    }
    // Conditions ask for a snapshot's labels: snapshots come first.
    for (const [self, { record }] of this.#snapshots) this.#draw(self, record.labels);
    for (const { key, value } of tx.list<BlobRecord>(keys.blobs(this.#namespace))) {
      this.#blobs.set(key[2]!, value);
      this.#draw(node.content(key[2]!), value.labels);
    }
    for (const { key, value } of tx.list<IngestRecord>(keys.ingests(this.#namespace)))
      this.#ingests.set(key[2]!, value);
    for (const { key, value } of tx.list<ImageRecord>(keys.images(this.#namespace))) {
      this.#images.set(key[2]!, value);
      this.#draw(node.image(key[2]!), value.labels);
    }
    this.#loadMounts();
  }

  #loadMounts(): void {
    for (const { key, value } of this.#tx.list<ActivationRecord>(keys.mounts(this.#namespace))) {
      this.#mounts.set(key[2]!, value);
      this.#draw(node.mount(key[2]!), value.labels);
    }
  }

  #draw(self: Node, labels: Record<string, string>): void {
    for (const source of backReferences(labels)) this.#edge(source, self);
    for (const { snapshot, holds } of conditionalReferences(labels)) {
      const target = this.#snapshots.get(snapshot);
      if (target && holds(target.record.labels, this.#at)) this.#edge(self, snapshot);
    }
  }

  #edge(from: Node, to: Node): void {
    const edges = this.#extra.get(from);
    if (edges) edges.push(to);
    else this.#extra.set(from, [to]);
  }

  #mark(target: Node): void {
    if (this.#marked.has(target)) return;
    this.#marked.add(target);
    this.#gray.push(target);
  }

  #roots(): void {
    for (const [digest, { labels }] of this.#blobs) if (this.#isRoot(labels)) this.#mark(node.content(digest));
    for (const [self, { record }] of this.#snapshots) if (this.#isRoot(record.labels)) this.#mark(self);
    for (const [ref, { expiresAt }] of this.#ingests) {
      if (expiresAt && toMillis(expiresAt) > toMillis(this.#at)) this.#mark(node.ingest(ref));
    }
    for (const [name, { labels }] of this.#images) if (!this.#expired(labels)) this.#mark(node.image(name));
    for (const [name, { labels, transient }] of this.#mounts) {
      if (transient || this.#isRoot(labels)) this.#mark(node.mount(name));
    }
    for (const { key, value } of this.#tx.list<ContainerRecord>(keys.containers(this.#namespace))) {
      this.#mark(node.container(key[2]!));
      if (value.snapshotter !== '' && value.snapshotKey !== '')
        this.#mark(node.snapshot(value.snapshotter, value.snapshotKey));
      for (const target of references(value.labels)) this.#mark(target);
    }
    for (const { key, value } of this.#tx.list<{ labels?: Record<string, string> }>(keys.sandboxes(this.#namespace))) {
      this.#mark(node.sandbox(key[2]!));
      for (const target of references(value.labels ?? {})) this.#mark(target);
    }
    this.#leaseRoots();
  }

  #leaseRoots(): void {
    for (const { key, value } of [...this.#tx.list<LeaseRecord>(keys.leases(this.#namespace))]) {
      const id = key[2]!;
      if (this.#expired(value.labels)) {
        this.#tx.remove(key);
        this.#tx.removeAll(keys.leaseResources(this.#namespace, id));
        this.#swept.leases.push({ namespace: this.#namespace, id });
        continue;
      }
      const flat = isFlat(value.labels);
      for (const { type, id: resource } of leaseResources(this.#tx, this.#namespace, id)) {
        const target = leased(type, resource);
        if (!target) continue;
        // A flat lease holds the thing itself and what it cannot be without, but not what its labels refer to.
        if (!flat) this.#mark(target);
        else for (const held of this.#withNeeds(target)) this.#flat.add(held);
      }
      for (const target of references(value.labels)) this.#mark(target);
    }
  }

  /** A node and what it is nothing without: a snapshot's parents, an image's target. */
  *#withNeeds(target: Node): Iterable<Node> {
    yield target;
    if (target.startsWith('image ')) {
      const image = this.#images.get(target.slice('image '.length));
      if (image) yield node.content(image.target.digest);
      return;
    }
    for (let at = this.#snapshots.get(target); at && at.record.parent !== ''; ) {
      const parent = node.snapshot(at.snapshotter, at.record.parent);
      yield parent;
      at = this.#snapshots.get(parent);
    }
  }

  *#edges(from: Node): Iterable<Node> {
    yield* this.#extra.get(from) ?? [];
    const at = from.indexOf(' ');
    const id = from.slice(at + 1);
    switch (from.slice(0, at)) {
      case 'content':
        yield* references(this.#blobs.get(id)?.labels ?? {});
        return;
      case 'ingest': {
        const expected = this.#ingests.get(id)?.expected;
        if (expected) yield node.content(expected);
        return;
      }
      case 'image': {
        const image = this.#images.get(id);
        if (!image) return;
        yield node.content(image.target.digest);
        yield* references(image.labels);
        return;
      }
      case 'snapshot': {
        const snapshot = this.#snapshots.get(from);
        if (!snapshot) return;
        const { parent, layer, labels } = snapshot.record;
        if (parent !== '') yield node.snapshot(snapshot.snapshotter, parent);
        if (layer) yield node.content(layer.digest);
        yield* references(labels);
        return;
      }
      case 'mount':
        yield* references(this.#mounts.get(id)?.labels ?? {});
    }
  }

  #sweep(): void {
    const namespace = this.#namespace;
    for (const [name] of this.#images) {
      if (this.#kept(node.image(name))) continue;
      this.#tx.remove(keys.image(namespace, name));
      this.#swept.images.push({ namespace, name });
    }
    for (const [digest] of this.#blobs) {
      if (this.#kept(node.content(digest))) continue;
      this.#tx.remove(keys.blob(namespace, digest));
      this.#swept.content.push({ namespace, digest });
    }
    for (const [self, { snapshotter, key, record }] of this.#snapshots) {
      if (this.#kept(self)) continue;
      this.#tx.remove(keys.snapshot(namespace, snapshotter, key));
      if (record.parent !== '') this.#tx.remove(keys.snapshotChild(namespace, snapshotter, record.parent, key));
      this.#swept.snapshots.push({ namespace, snapshotter, key });
    }
    for (const [name, record] of this.#mounts) {
      if (this.#kept(node.mount(name))) continue;
      removeActivation(this.#tx, namespace, name, record);
      this.#swept.mounts.push({ namespace, name });
    }
    for (const ref of this.#ingests.keys()) {
      // Not held by a lease, and too old to be resumed (or never meant to be without its lease).
      if (this.#kept(node.ingest(ref))) continue;
      this.#tx.remove(keys.ingest(namespace, ref));
      this.#swept.ingests.push({ namespace, ref });
    }
  }

  #isRoot(labels: Record<string, string>): boolean {
    return isRoot(labels) || isKeptForNow(labels, this.#at);
  }

  #kept(self: Node): boolean {
    return this.#marked.has(self) || this.#flat.has(self);
  }

  #expired(labels: Record<string, string>): boolean {
    return isExpired(labels, this.#at);
  }
}

/** The node that a lease's resource is; undefined for kinds that are not collected. */
function leased(type: string, id: string): Node | undefined {
  if (type === 'content') return node.content(id);
  if (type === 'ingests') return node.ingest(id);
  if (type === 'images') return node.image(id);
  if (type === 'mounts') return node.mount(id);
  return type.startsWith('snapshots/') ? node.snapshot(type.slice('snapshots/'.length), id) : undefined;
}
