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

export class Ledger {
  readonly images = new Book<undefined>();
  readonly blobs = new Book<Buffer>();
  readonly ingests = new Map<string, IngestPlan>();
  readonly snapshots = new Book<undefined>();
  readonly containers = new Book<Record<string, string>>();
  readonly tasks = new Book<TaskPlan>();
  readonly leases = new Book<undefined>();

  /** How many calls of each kind were answered, and how many the last kill cut off. */
  summary(): string {
    const { images, blobs, snapshots, containers, tasks, leases } = this;
    return Object.entries({ images, blobs, snapshots, containers, tasks, leases })
      .map(([kind, book]) => `${kind} ${book.answered} (${book.ids('unclear').length} cut off)`)
      .join(', ');
  }
}
