/** What this room's tests share: temporary directories, hand-made archives, and a lister that shows all a layer can hold. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ApplyLayerResult, applyLayer } from '../apply-layer.ts';
import type { JobContext } from '../job.ts';
import type { ApplyTarget } from '../layer-applier.ts';
import { encodeTarHeader, type TarEntry, tarEnd, tarPadding } from '../tar-encode.ts';
import { Tree } from '../tree-changes.ts';

/** Reason for skipping what only root can do, as node:test takes it. */
export const needsRoot: string | false = process.geteuid?.() === 0 ? false : 'needs root';

/** A directory of the test's own, removed at its end. */
export function tempDirectory(t: { after(fn: () => void): void }): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-archive-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export type FixtureEntry = Partial<TarEntry> & { path: string; content?: string | Buffer };

/** An archive of these entries: files by default, mode 0644, owner root. */
export function makeTar(...entries: FixtureEntry[]): Buffer {
  const parts: Buffer[] = [];
  for (const { content, ...entry } of entries) {
    const bytes = Buffer.from(content ?? '');
    const type = entry.type ?? (entry.path.endsWith('/') ? '5' : '0');
    const mode = type === '5' ? 0o755 : 0o644;
    parts.push(encodeTarHeader({ mode, mtime: 1_600_000_000, size: bytes.length, ...entry, type }));
    parts.push(bytes, Buffer.alloc(tarPadding(bytes.length)));
  }
  return Buffer.concat([...parts, tarEnd()]);
}

/** A job context for calling a job without a worker. */
export function jobContext(signal: AbortSignal = new AbortController().signal): JobContext {
  return { signal, progress() {}, nextMessage: () => Promise.reject(new Error('no messages here')) };
}

/** Unpacks bytes in this thread. */
export async function unpack(archive: Buffer, target: ApplyTarget): Promise<ApplyLayerResult> {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-archive-blob-'));
  try {
    const file = path.join(directory, 'layer');
    writeFileSync(file, archive);
    return await applyLayer({ source: { kind: 'file', path: file }, target }, jobContext());
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A line for each name below `root`: all that a layer keeps of it. Times in whole seconds. */
export function listTree(root: string, options: { times?: boolean } = {}): string[] {
  using tree = new Tree(root);
  const lines: string[] = [];
  // Layers of an overlay may have the same numbers.
  const inodes = new Map<string, string>();
  const todo = [''];
  for (let directory = todo.pop(); directory !== undefined; directory = todo.pop()) {
    for (const name of tree.list(directory).sort()) {
      const full = directory === '' ? name : `${directory}/${name}`;
      const stat = tree.stat(directory, name)!;
      const kind = stat.mode & 0o170000;
      const isDirectory = kind === 0o040000;
      const xattrs = tree.xattrs(directory, name).map(([key, value]) => `${key}=${value.toString('hex')}`);
      const inode = `${stat.devMajor}:${stat.devMinor}:${stat.ino}`;
      const link = inodes.get(inode);
      if (!isDirectory && stat.nlink > 1 && link === undefined) inodes.set(inode, full);
      const parts = [
        full,
        stat.mode.toString(8),
        `${stat.uid}:${stat.gid}`,
        ...(isDirectory ? [] : [`size ${stat.size}`, `device ${stat.rdevMajor}:${stat.rdevMinor}`]),
        ...(options.times === false ? [] : [`time ${stat.mtime}`]),
        ...(kind === 0o120000 ? [`-> ${tree.readlink(directory, name)}`] : []),
        ...(link !== undefined ? [`= ${link}`] : []),
        ...xattrs,
      ];
      lines.push(parts.join(' '));
      if (isDirectory) todo.push(full);
    }
  }
  return lines.sort();
}
