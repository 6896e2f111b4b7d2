import type { Mount } from '@gantry/mount';
import type { Logger } from '../log/logger.ts';
import type { Key, MetadataStore } from '../metadata/metadata-store.ts';
import { keys } from '../metadata/schema.ts';
import type { SnapshotRecord } from './snapshot-record.ts';
import type { SnapshotLayer, Snapshotter } from './snapshotter.ts';

interface Unsettled {
  key: Key;
  record: SnapshotRecord & { layer: SnapshotLayer };
}

/** Milliseconds. */
const settleDelay = 1000;

/** Brings to disk what a pull has committed without waiting for that, and has made again what a power cut left half there. */
export class SnapshotSettling {
  readonly #name: string;
  readonly #backend: Snapshotter;
  readonly #store: MetadataStore;
  readonly #log: Logger;
  readonly #mutated: (deletion: boolean) => void;
  #timer: NodeJS.Timeout | undefined;
  #closing = false;
  /** False: no record has a layer, so nobody need look for one. */
  #mayBeUnsettled = true;

  /** @param name the snapshotter's */
  constructor(
    name: string,
    backend: Snapshotter,
    { store, log, mutated }: { store: MetadataStore; log: Logger; mutated(deletion: boolean): void },
  ) {
    this.#name = name;
    this.#backend = backend;
    this.#store = store;
    this.#log = log;
    this.#mutated = mutated;
  }

  /** A record with a layer is on its way. */
  expect(): void {
    this.#mayBeUnsettled = true;
  }

  /** Brings what steps committed to disk, once nothing has been committed for a moment. */
  soon(): void {
    // Somebody may have looked before the record was there.
    this.expect();
    clearTimeout(this.#timer);
    if (this.#closing) return;
    this.#timer = setTimeout(() => {
      this.settle().then(
        // A collection that has looked before has kept their layers.
        (settled) => settled && this.#mutated(true),
        (error) => this.#log.error('snapshots cannot be brought to disk', { error, snapshotter: this.#name }),
      );
    }, settleDelay).unref();
  }

  /**
   * Settles when the files of all that is committed are on disk: from then on their layers are not needed for them. Answers whether there
   * was anything to bring there.
   */
  async settle(): Promise<boolean> {
    clearTimeout(this.#timer);
    if (!this.#backend.settle || !this.#mayBeUnsettled) return false;
    const all = this.#unsettled();
    this.#mayBeUnsettled = all.length > 0;
    if (all.length === 0) return false;
    const suspects = new Set(this.#backend.suspects?.());
    const unsettled = all.filter(({ record }) => !suspects.has(record.backendKey));
    if (unsettled.length === 0) return false;
    await this.#backend.settle();
    await this.#store.update(
      (tx) => {
        for (const { key, record } of unsettled) {
          const found = tx.get<SnapshotRecord>(key);
          if (found?.backendKey !== record.backendKey) continue;
          const { layer: _, ...rest } = found;
          tx.put(key, rest);
        }
      },
      { step: true },
    );
    return true;
  }

  /** The last settling; no other follows. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.settle();
  }

  #unsettled(): Unsettled[] {
    return this.#store.view((tx) => {
      const found: Unsettled[] = [];
      for (const namespace of tx.children(keys.namespaces())) {
        for (const { key, value } of tx.list<SnapshotRecord>(keys.snapshots(namespace, this.#name))) {
          const { layer } = value;
          if (layer) found.push({ key, record: { ...value, layer } });
        }
      }
      return found;
    });
  }

  /**
   * Makes again what was committed and perhaps not on disk when the machine stopped. What cannot be made again stays, and cannot be
   * used; what has no record is the collector's, who is asked first. To be called before anybody is served.
   */
  async remake(
    collect: () => Promise<unknown>,
    fill: (namespace: string, layer: SnapshotLayer, mounts: Mount[]) => Promise<void>,
  ): Promise<void> {
    const backend = this.#backend;
    if (backend.remake && backend.suspects && backend.suspects().length > 0) {
      await collect();
      for (const name of backend.suspects()) {
        const known = this.#unsettled().find(({ record }) => record.backendKey === name);
        if (known) await this.#remake(known, fill);
      }
      await backend.settle?.();
    }
    if (this.#unsettled().length > 0) this.soon();
  }

  async #remake(
    { key, record }: Unsettled,
    fill: (namespace: string, layer: SnapshotLayer, mounts: Mount[]) => Promise<void>,
  ): Promise<void> {
    const where = { snapshotter: this.#name, key: key[3], digest: record.layer.digest };
    try {
      await this.#backend.remake?.(record.backendKey, (mounts) => fill(key[1]!, record.layer, mounts));
      this.#log.info('snapshot was not on disk when the machine stopped: unpacked again', where);
    } catch (error) {
      // Another collection may have taken it meanwhile.
      if (this.#unsettled().every((one) => one.record.backendKey !== record.backendKey)) return;
      const what = 'snapshot was not on disk when the machine stopped, and cannot be unpacked again';
      this.#log.error(what, { ...where, error });
    }
  }
}
