import { open } from 'node:fs/promises';

interface Syncing {
  running: Promise<void>;
  /** That of all who came while it ran. */
  next: Promise<void> | undefined;
}

/** Brings directories to disk: those who ask while one is being synced share the next time. */
export class DirectorySync {
  readonly #syncing = new Map<string, Syncing>();

  /** Settles when all that was in the directory at the call is on disk. */
  sync(dir: string): Promise<void> {
    const before = this.#syncing.get(dir);
    if (before) {
      before.next ??= before.running.catch(() => undefined).then(() => this.#start(dir));
      return before.next;
    }
    return this.#start(dir);
  }

  #start(dir: string): Promise<void> {
    const syncing: Syncing = { running: syncDirectory(dir), next: undefined };
    this.#syncing.set(dir, syncing);
    const end = (): void => {
      if (!syncing.next) this.#syncing.delete(dir);
    };
    syncing.running.then(end, end);
    return syncing.running;
  }
}

async function syncDirectory(dir: string): Promise<void> {
  await using handle = await open(dir, 'r');
  await handle.sync();
}
