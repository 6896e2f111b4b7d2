// What a root directory knows of its takeover from containerd: how far it came, and from where. A daemon starts on a whole one only.
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs';
import path from 'node:path';
import { failedPrecondition } from '@gantry/api';
import { lockFileShared } from '@gantry/sys/locks.ts';

export interface TakeoverState {
  version: 1;
  /** `started`: half-made; `done`: this root is the one in use; `back`: containerd has its things again. */
  phase: 'started' | 'done' | 'back';
  /** When the phase began, as RFC 3339 writes it. */
  at: string;
  from: {
    /** containerd's directories and sockets. */
    root: string;
    state: string;
    address: string;
    ttrpcAddress: string;
  };
  /** containerd's metadata file, and how it was when it was read. */
  metadata: { file: string; fingerprint: string };
}

const fileIn = (root: string) => path.join(root, 'takeover.json');

/** Undefined for a root that never took anything over. @throws StatusError FailedPrecondition if the note cannot be understood */
export function readTakeover(root: string): TakeoverState | undefined {
  let text: string;
  try {
    text = readFileSync(fileIn(root), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  let state: TakeoverState | undefined;
  try {
    state = JSON.parse(text) as TakeoverState;
  } catch {
    // Told below.
  }
  if (state?.version !== 1 || !['started', 'done', 'back'].includes(state.phase))
    throw failedPrecondition(`${fileIn(root)}: cannot be understood by this gantryd`);
  return state;
}

/** Durable when it returns; whoever reads sees the old note or the new one. */
export function writeTakeover(root: string, state: TakeoverState): void {
  const file = fileIn(root);
  const fd = openSync(`${file}.new`, 'w', 0o600);
  try {
    writeSync(fd, `${JSON.stringify(state, undefined, 2)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(`${file}.new`, file);
  const directory = openSync(root, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** Changes with every write to the file; undefined if there is no such file. */
export function fingerprintOf(file: string): string | undefined {
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stat && `${stat.size}:${stat.mtimeNs}`;
}

/**
 * For a daemon on a root that was taken over: keeps containerd from starting on its own, whose snapshots are used here. Answers how to
 * let go.
 * @throws StatusError FailedPrecondition if the takeover is half-made or was given back, or if containerd runs or ran since
 */
export function holdTakeover(root: string): () => void {
  const state = readTakeover(root);
  if (!state) return () => undefined;
  if (state.phase === 'started') {
    throw failedPrecondition(
      `${root}: the migration from containerd was cut off; run "gantryd migrate --from-containerd" again, or with --back to give it up`,
    );
  }
  if (state.phase === 'back') {
    throw failedPrecondition(
      `${root}: was given back to containerd at ${state.at}; run "gantryd migrate --from-containerd" to take over anew`,
    );
  }
  const { file, fingerprint } = state.metadata;
  if (fingerprintOf(file) === undefined) return () => undefined;
  const fd = openSync(file, 'r');
  try {
    lockFileShared(fd);
    if (fingerprintOf(file) !== fingerprint) {
      throw failedPrecondition(
        `${root}: containerd has run on ${state.from.root} since it was taken over; run "gantryd migrate --from-containerd --back", then migrate again`,
      );
    }
  } catch (error) {
    closeSync(fd);
    if ((error as { code?: unknown }).code !== 'EAGAIN') throw error;
    throw failedPrecondition(
      `${root}: containerd runs on ${state.from.root}, whose snapshots are used here; stop it first`,
      error,
    );
  }
  return () => closeSync(fd);
}
