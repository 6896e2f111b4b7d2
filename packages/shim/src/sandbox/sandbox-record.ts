import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { SpecNamespace } from '@gantry/oci';
import { sandboxRecordName } from '../record.ts';

/** `making` and `ending`: whoever finds it there after the shim died has to undo it, nobody was answered. */
export type SandboxState = 'making' | 'created' | 'ready' | 'stopped' | 'ending';

/**
 * What a shim knows of a sandbox, kept in its bundle and written before each answer. A sandbox with a process has that process's own
 * record beside it.
 */
export interface SandboxRecord {
  version: 1;
  namespace: string;
  id: string;
  bundle: string;
  /** Whether a process holds its namespaces; else they are mounted beneath `namespacesDir`. */
  process: boolean;
  /** The process is one that does nothing: it need not be asked to end. */
  pause: boolean;
  state: SandboxState;
  /** Its namespaces: with the path by which others can join them, where there is one without a process. */
  namespaces: SpecNamespace[];
  createdAt: { seconds: string; nanos: number };
  exit?: { exitStatus: number; seconds: string; nanos: number };
  /** Control socket of the shim that has it. */
  control: string;
}

/** Where a sandbox's namespaces are mounted: `net`, `ipc`, `uts`. */
export function namespacesDir(bundle: string): string {
  return path.join(bundle, 'namespaces');
}

/** Writes a bundle's record: a reader sees the old one or the new one. */
export function writeSandboxRecord(record: SandboxRecord): void {
  const file = path.join(record.bundle, sandboxRecordName);
  writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** A bundle's record; undefined if there is none (or none of this version). */
export function readSandboxRecord(bundle: string): SandboxRecord | undefined {
  let text: string;
  try {
    text = readFileSync(path.join(bundle, sandboxRecordName), 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
  const record = JSON.parse(text) as SandboxRecord;
  return record.version === 1 ? record : undefined;
}

export function removeSandboxRecord(bundle: string): void {
  rmSync(path.join(bundle, sandboxRecordName), { force: true });
}
