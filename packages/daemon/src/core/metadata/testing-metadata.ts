import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { MetadataContainers } from '../containers/metadata-containers.ts';
import { KeyedLock } from '../content/keyed-lock.ts';
import { MetadataContentStore } from '../content/metadata-content-store.ts';
import { Exchange } from '../events/event-exchange.ts';
import type { Envelope } from '../events/exchange.ts';
import { Collector } from '../gc/collector.ts';
import { GcScheduler } from '../gc/scheduler.ts';
import { MetadataImages } from '../images/metadata-images.ts';
import { MetadataLeases } from '../leases/metadata-leases.ts';
import type { Logger } from '../log/logger.ts';
import { MetadataNamespaces } from '../namespaces/metadata-namespaces.ts';
import { contextOf, type RequestContext } from '../request-context.ts';
import { MetadataSandboxes } from '../sandboxes/metadata-sandboxes.ts';
import { MetadataSnapshotter } from '../snapshots/metadata-snapshotter.ts';
import { LoadedSnapshotters } from '../snapshots/snapshotter-registry.ts';
import { LmdbStore } from './lmdb-store.ts';
import { MemoryContent, MemorySnapshotter, sha256 } from './testing-backends.ts';

const quiet = (): void => {};

/** Every namespaced store over one fresh database and backends in memory, for tests. */
export class TestingMetadata {
  readonly directory: string;
  readonly store: LmdbStore;
  readonly backend = new MemoryContent();
  readonly bytesBelow = new MemorySnapshotter();
  readonly warnings: string[] = [];
  readonly log: Logger;
  readonly exchange = new Exchange();
  readonly events: Envelope[] = [];
  readonly locks = new KeyedLock();
  readonly sweepers: (() => Promise<void>)[] = [];
  readonly gc: GcScheduler;
  readonly namespaces: MetadataNamespaces;
  readonly content: MetadataContentStore;
  readonly images: MetadataImages;
  readonly containers: MetadataContainers;
  readonly sandboxes: MetadataSandboxes;
  readonly leases: MetadataLeases;
  readonly snapshotter: MetadataSnapshotter;
  readonly snapshotters: LoadedSnapshotters;

  private constructor(directory: string, store: LmdbStore, policy: 'shared' | 'isolated') {
    this.directory = directory;
    this.store = store;
    const { backend, exchange: events, locks } = this;
    const warn = (message: string): void => void this.warnings.push(message);
    const log: Logger = { trace: quiet, debug: quiet, info: quiet, warn, error: warn, with: () => log };
    this.log = log;
    events.listen((envelope) => this.events.push(envelope));
    const gc = new GcScheduler(log);
    this.gc = gc;
    const mutated = (deletion: boolean): void => gc.mutated(deletion);
    const namespaces = new MetadataNamespaces(store, events);
    this.namespaces = namespaces;
    this.snapshotter = new MetadataSnapshotter('memory', this.bytesBelow, { store, namespaces, events, log, mutated });
    const snapshotters = new Map([['memory', this.snapshotter]]);
    this.snapshotters = new LoadedSnapshotters(store, snapshotters);
    const collector = new Collector({
      store,
      backend,
      locks,
      snapshotters: () => snapshotters.values(),
      sweepers: () => this.sweepers,
      events,
      log,
    });
    gc.use(() => collector.run());
    this.content = new MetadataContentStore({ store, backend, namespaces, events, policy, locks, mutated });
    this.images = new MetadataImages(store, events, namespaces, gc);
    this.containers = new MetadataContainers(store, events, namespaces, gc);
    this.sandboxes = new MetadataSandboxes(store, namespaces, gc);
    this.leases = new MetadataLeases(store, namespaces, gc);
  }

  static async open(policy: 'shared' | 'isolated' = 'shared'): Promise<TestingMetadata> {
    const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-metadata-'));
    const store = await LmdbStore.open({ path: path.join(directory, 'meta.lmdb'), noSync: true });
    return new TestingMetadata(directory, store, policy);
  }

  /** Topics of the events so far, with their namespaces. */
  topics(): string[] {
    return this.events.map(({ namespace, topic }) => `${namespace} ${topic}`);
  }

  /** Writes a blob; answers its digest. */
  async blob(ctx: RequestContext, text: string, labels: Record<string, string> = {}): Promise<string> {
    const bytes = Buffer.from(text);
    const writer = await this.content.writer(ctx, { ref: `blob-${text}` });
    try {
      await writer.write(bytes);
      await writer.commit({ expected: sha256(bytes), labels });
    } finally {
      await writer.close();
    }
    return sha256(bytes);
  }

  /** Prepares and commits a snapshot. */
  async layer(ctx: RequestContext, name: string, parent = '', labels: Record<string, string> = {}): Promise<string> {
    await this.snapshotter.prepare(ctx, `prepare-${name}`, parent);
    await this.snapshotter.commit(ctx, name, `prepare-${name}`, { labels });
    return name;
  }

  async digests(namespace: string): Promise<string[]> {
    const found: string[] = [];
    for await (const { digest } of this.content.list(contextOf(namespace))) found.push(digest);
    return found;
  }

  async layers(namespace: string): Promise<string[]> {
    const found: string[] = [];
    for await (const { name } of this.snapshotter.list(contextOf(namespace))) found.push(name);
    return found;
  }

  async close(): Promise<void> {
    await this.gc.close();
    await this.store.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
