/**
 * What clients were answered before the daemon died, and what they had asked without an answer. After a restart the first
 * must hold; the second may have happened or not.
 */

/** `there`: its making was answered. `unclear`: a call about it had no answer. What was answered to be gone has no entry. */
export type Fate = 'there' | 'unclear';

export interface Entry<T> {
  fate: Fate;
  detail: T;
}

/** One kind of thing (images, leases, …) by id. */
export class Book<T> {
  readonly entries = new Map<string, Entry<T>>();
  /** Calls that answered, of all lives of the daemon. */
  answered = 0;

  /** Notes a call that makes or changes the thing: unclear until it answers. */
  async make<R>(id: string, detail: T, call: () => Promise<R>): Promise<R> {
    this.entries.set(id, { fate: 'unclear', detail });
    const result = await call();
    this.answered++;
    this.entries.set(id, { fate: 'there', detail });
    return result;
  }

  /** Notes a call that removes it. */
  async remove<R>(id: string, call: () => Promise<R>): Promise<R> {
    const entry = this.entries.get(id);
    if (entry) entry.fate = 'unclear';
    const result = await call();
    this.answered++;
    this.entries.delete(id);
    return result;
  }

  ids(fate?: Fate): string[] {
    return [...this.entries].filter(([, entry]) => fate === undefined || entry.fate === fate).map(([id]) => id);
  }

  detail(id: string): T | undefined {
    return this.entries.get(id)?.detail;
  }

  /** As it is now; the details too, one level deep. */
  copy(): Book<T> {
    const book = new Book<T>();
    book.answered = this.answered;
    for (const [id, { fate, detail }] of this.entries) {
      const plain = typeof detail === 'object' && detail !== null && Object.getPrototypeOf(detail) === Object.prototype;
      book.entries.set(id, { fate, detail: plain ? { ...detail } : detail });
    }
    return book;
  }

  /** What a look after the restart has shown of an unclear one. */
  settle(id: string, there: boolean): void {
    const entry = this.entries.get(id);
    if (!there) this.entries.delete(id);
    else if (entry) entry.fate = 'there';
  }
}

/** What a task's command will do. */
export interface TaskPlan {
  /** Exit code of its own accord; undefined: it runs until killed. */
  exitCode: number | undefined;
  /** Whether its start was answered. */
  started: boolean;
  /** Whether anyone has sent it a signal. */
  signalled: boolean;
}

/** A blob under way in pieces. */
export interface IngestPlan {
  bytes: Buffer;
  digest: string;
  /** Offset of the last answer. */
  written: number;
  /** Its commit was asked: from then on it may be neither an ingest nor a blob, but never half of one. */
  committing: boolean;
}

/** Hashes of a snapshot's own files by path; undefined: nothing is known of them. */
export type SnapshotFiles = ReadonlyMap<string, string> | undefined;

/** A record whose labels say which change it has seen. An update without an answer leaves either. */
export interface LabelPlan {
  change: string;
  before?: string;
}

export class Ledger {
  images = new Book<undefined>();
  blobs = new Book<Buffer>();
  ingests = new Map<string, IngestPlan>();
  snapshots = new Book<SnapshotFiles>();
  containers = new Book<Record<string, string>>();
  tasks = new Book<TaskPlan>();
  leases = new Book<undefined>();
  /** Other records, as `kind/id`. */
  records = new Book<LabelPlan>();

  copy(): Ledger {
    const copy = new Ledger();
    copy.images = this.images.copy();
    copy.blobs = this.blobs.copy();
    for (const [ref, plan] of this.ingests) copy.ingests.set(ref, { ...plan });
    copy.snapshots = this.snapshots.copy();
    copy.containers = this.containers.copy();
    copy.tasks = this.tasks.copy();
    copy.leases = this.leases.copy();
    copy.records = this.records.copy();
    return copy;
  }

  /** How many calls of each kind were answered, and how many the last kill cut off. */
  summary(): string {
    const { images, blobs, snapshots, containers, tasks, leases, records } = this;
    return Object.entries({ images, blobs, snapshots, containers, tasks, leases, records })
      .filter(([, book]) => book.answered > 0)
      .map(([kind, book]) => `${kind} ${book.answered} (${book.ids('unclear').length} cut off)`)
      .join(', ');
  }
}
