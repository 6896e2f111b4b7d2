import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, rmdir, stat, truncate, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { formatTime, fromMillis, now, parseTime, type Time } from '@gantry/api';

import { syncPath } from '../../core/sync/filesystem-sync.ts';

/** What an ingest's directory says about it. */
export interface IngestRecord {
  ref: string;
  offset: number;
  total: number;
  startedAt: Time;
  updatedAt: Time;
}

export function isMissing(reason: unknown): boolean {
  return (reason as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
}

/** What an ingest consists of besides `data`, which has mostly become a blob, and `synced`, which few have. */
const files = ['ref', 'startedat', 'updatedat', 'total'];

function directoryName(ref: string): string {
  return createHash('sha256').update(ref).digest('hex');
}

/**
 * One ingest on disk, as containerd lays it out: `ingest/<sha256 of ref>/` with `data`, `ref`, `startedat`, `updatedat` and,
 * if the size is known beforehand, `total`. The size of `data` is the offset.
 */
export class IngestFiles {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  static for(root: string, ref: string): IngestFiles {
    return new IngestFiles(path.join(root, 'ingest', directoryName(ref)));
  }

  get data(): string {
    return path.join(this.dir, 'data');
  }

  /** Lays out a new, empty ingest over whatever half of one is there. `data` comes last: without it there is no ingest. */
  async create(ref: string, total: number): Promise<IngestRecord> {
    try {
      await mkdir(this.dir, { mode: 0o755 });
    } catch {
      // Half of one, or no folder for it.
      await rm(this.dir, { recursive: true, force: true });
      await mkdir(this.dir, { recursive: true, mode: 0o755 });
    }
    const at = now();
    const text = formatTime(at);
    try {
      const notes = [
        this.#put('ref', ref),
        this.#put('startedat', text),
        this.#put('updatedat', text),
        total > 0 ? this.#put('total', String(total)) : undefined,
      ];
      // Each must have ended before the directory can go.
      for (const note of await Promise.allSettled(notes)) if (note.status === 'rejected') throw note.reason;
      await writeFile(this.data, '', { mode: 0o666 });
    } catch (reason) {
      await this.remove();
      throw reason;
    }
    return { ref, offset: 0, total, startedAt: at, updatedAt: at };
  }

  /** Undefined if there is no whole ingest here: after a power cut, its files may be there and empty. */
  async read(): Promise<IngestRecord | undefined> {
    try {
      // Without this one, and mostly there is none, the others need not be looked for.
      const ref = await readFile(path.join(this.dir, 'ref'), 'utf8');
      const [data, total, startedAt, updatedAt] = await Promise.all([
        stat(this.data),
        this.#get('total'),
        this.#get('startedat'),
        this.#get('updatedat'),
      ]);
      if (path.basename(this.dir) !== directoryName(ref)) return undefined;
      const modified = fromMillis(data.mtimeMs);
      return {
        ref,
        offset: data.size,
        total: Number(total ?? 0) || 0,
        startedAt: parseTime(startedAt ?? '') ?? modified,
        updatedAt: parseTime(updatedAt ?? '') ?? modified,
      };
    } catch (reason) {
      if (isMissing(reason)) return undefined;
      throw reason;
    }
  }

  /** Notes when the last bytes came. Nothing to note if the ingest was aborted meanwhile. */
  async touch(at: Time): Promise<void> {
    try {
      await this.#put('updatedat', formatTime(at));
    } catch (reason) {
      if (!isMissing(reason)) throw reason;
    }
  }

  setTotal(total: number): Promise<void> {
    return this.#put('total', String(total));
  }

  /** Notes how many bytes are known to be on disk. To be called when they are. */
  setSynced(offset: number): Promise<void> {
    return this.#put('synced', String(offset));
  }

  /** What is on disk is no longer what was noted. */
  async forgetSynced(): Promise<void> {
    await rm(path.join(this.dir, 'synced'), { force: true });
    await syncPath(this.dir);
  }

  /**
   * After the machine has stopped: bytes that were not synced may be zeros now, whatever the size says. Cuts the ingest to what was, or
   * removes it.
   */
  async trust(): Promise<void> {
    const synced = Number((await this.#get('synced')) ?? 0) || 0;
    const { size } = await stat(this.data);
    if (synced > size || synced === 0) await this.remove();
    else if (synced < size) await truncate(this.data, synced);
  }

  /** By name what is usually there: to look would take longer than to delete. */
  async remove(): Promise<void> {
    await Promise.allSettled(files.map((name) => unlink(path.join(this.dir, name))));
    try {
      await rmdir(this.dir);
    } catch (reason) {
      if (!isMissing(reason)) await rm(this.dir, { recursive: true, force: true });
    }
  }

  async #get(name: string): Promise<string | undefined> {
    try {
      return (await readFile(path.join(this.dir, name), 'utf8')).trim();
    } catch (reason) {
      if (isMissing(reason)) return undefined;
      throw reason;
    }
  }

  #put(name: string, text: string): Promise<void> {
    return writeFile(path.join(this.dir, name), text, { mode: 0o666 });
  }
}
