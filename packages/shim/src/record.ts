import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ContainerIdentity } from './container-identity.ts';
import type { PipeInodes, StdioRequest } from './stdio/process-io.ts';

/** A process as it stands on disk: enough to find it again and to know that it is the same one. */
export interface ProcessRecord {
  execId: string;
  pid: number;
  /** Start time in clock ticks since boot (/proc/<pid>/stat): with the pid it names a process for good. */
  startTime: string;
  started: boolean;
  stdio: StdioRequest;
  direct: boolean;
  /** CloseIO has been called: its input is not to be held open again. */
  stdinClosed?: boolean;
  pipes?: PipeInodes;
  /** Of an exec that was added and not started: its process document, base64. */
  spec?: string;
  exit?: { exitStatus: number; seconds: string; nanos: number };
}

/**
 * What a shim knows of a container, kept in its bundle and written before each answer, so that another shim can take over and
 * `delete` can clean up. `inFlight` names the OCI runtime command that is at work: whoever finds it there after the shim died
 * must expect it half done.
 */
export interface ContainerRecord extends ContainerIdentity {
  version: 1;
  paused: boolean;
  inFlight: string;
  /** Control socket of the shim that has it. */
  control: string;
  init?: ProcessRecord;
  execs: ProcessRecord[];
}

export const recordName = 'gantry-shim.json';
/** Of what the bundle says of a sandbox. */
export const sandboxRecordName = 'gantry-sandbox.json';

/** Writes a bundle's record: a reader sees the old one or the new one. The bundle is in memory, gone with the machine: no sync. */
export function writeRecord(record: ContainerRecord): void {
  const file = path.join(record.bundle, recordName);
  writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** A bundle's record; undefined if there is none (or none of this version). */
export function readRecord(bundle: string): ContainerRecord | undefined {
  let text: string;
  try {
    text = readFileSync(path.join(bundle, recordName), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ENOTDIR')
      return undefined;
    throw error;
  }
  const record = JSON.parse(text) as ContainerRecord;
  return record.version === 1 ? record : undefined;
}

/** The group's list of bundles: one small file a container, so that nothing is rewritten for all. */
export class ContainerIndex {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  add(namespace: string, id: string, bundle: string): void {
    writeFileSync(this.#file(namespace, id), bundle, { mode: 0o600 });
  }

  remove(namespace: string, id: string): void {
    rmSync(this.#file(namespace, id), { force: true });
  }

  list(): { namespace: string; id: string; bundle: string }[] {
    return readdirSync(this.#directory).map((name) => {
      // Neither half can hold a '+': containerd's identifiers are letters, digits, dots, dashes and underscores.
      const [namespace = '', id = ''] = name.split('+');
      return { namespace, id, bundle: readFileSync(path.join(this.#directory, name), 'utf8') };
    });
  }

  /** Removes the list itself, when the group ends. */
  dispose(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #file(namespace: string, id: string): string {
    return path.join(this.#directory, `${namespace}+${id}`);
  }
}

/** A process's start time in clock ticks since boot; undefined if there is no such process. */
export function processStartTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command's name stands in brackets and may hold anything, brackets too.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
