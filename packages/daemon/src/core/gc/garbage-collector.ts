/** What one collection did. */
export interface CollectionStats {
  /** Milliseconds the metadata was locked and in all. */
  lockMs: number;
  totalMs: number;
  removedContent: number;
  removedSnapshots: number;
}

/** Marks from roots (images, leases, containers, labels), sweeps the rest (containerd's docs/garbage-collection.md). */
export interface GarbageCollector {
  /** Asks for a collection and waits for it to end: what synchronous deletes do. */
  collect(): Promise<CollectionStats>;
  /** Tells of a change (deletion or mutation), so that the scheduler can decide. */
  mutated(deletion: boolean): void;
  /** Has a listener told of each collection that has ended, whether it worked and how many milliseconds it took. */
  onCollection?(listener: (ok: boolean, totalMs: number) => void): void;
}
