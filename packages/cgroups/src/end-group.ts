import { existsSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno } from '@gantry/sys';

export interface EndGroupOptions {
  /** Processes that were made before this stay, and the group with them: seconds since the machine's start. */
  since?: number;
  /** How long the kernel may take to end what was killed, milliseconds. */
  withinMs?: number;
  root?: string;
}

const pollMs = 20;

/**
 * Kills the processes of a group, in whichever hierarchies it is, and removes it with those beneath. For groups that nobody else sees
 * to; one that is not there is well. @returns the processes that were killed @throws Error if some are still there when the time is up
 */
export async function endGroup(group: string, options: EndGroupOptions = {}): Promise<number[]> {
  const { since = 0, withinMs = 10_000, root = '/sys/fs/cgroup' } = options;
  const below = path.posix.normalize(`/${group}`);
  if (below === '/' || below.startsWith('/..')) return [];
  const killed = new Set<number>();
  const deadline = performance.now() + withinMs;
  for (;;) {
    const directories = directoriesOf(below, root);
    if (directories.length === 0) return [...killed];
    const processes = [...new Set(directories.flatMap(processesOf))];
    // Somebody else's, who gave it the same name.
    if (processes.some((pid) => pid === process.pid || processStart(pid) < since)) return [...killed];
    for (const pid of processes) if (tryKill(pid)) killed.add(pid);
    for (const directory of directories) thaw(directory);
    if (processes.length === 0) for (const directory of directories) tryRemove(directory);
    if (performance.now() > deadline) throw new Error(`processes of ${below} are still there: ${processes}`);
    if (processes.length > 0) await sleep(pollMs);
  }
}

/** Its directories, those beneath first. */
function directoriesOf(below: string, root: string): string[] {
  // Where there are several hierarchies, none of them is to be taken for a group.
  const hierarchies = existsSync(path.join(root, 'cgroup.controllers')) ? [root] : subdirectories(root);
  return hierarchies.flatMap((hierarchy) => {
    const top = path.join(hierarchy, below);
    return existsSync(top) ? deepestFirst(top) : [];
  });
}

function deepestFirst(directory: string): string[] {
  return [...subdirectories(directory).flatMap(deepestFirst), directory];
}

function subdirectories(directory: string): string[] {
  try {
    const entries = readdirSync(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => path.join(directory, name));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENODEV')) return [];
    throw error;
  }
}

function processesOf(directory: string): number[] {
  try {
    return readFileSync(path.join(directory, 'cgroup.procs'), 'latin1').split('\n').filter(Boolean).map(Number);
  } catch (error) {
    // It went meanwhile, or has threads only.
    if (hasErrno(error, 'ENOENT', 'ENODEV', 'EOPNOTSUPP')) return [];
    throw error;
  }
}

/** Clock ticks of /proc in a second. */
const ticks = 100;

/** Seconds after the machine's start at which a process was made; that of one that is gone is no reason for anything. */
function processStart(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command's name stands in brackets and may hold anything, brackets too.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]) / ticks;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function tryKill(pid: number): boolean {
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch (error) {
    if (!hasErrno(error, 'ESRCH')) throw error;
    return false;
  }
}

/** In version 1 a frozen process does not end. */
function thaw(directory: string): void {
  try {
    writeFileSync(path.join(directory, 'freezer.state'), 'THAWED', { flag: 'r+' });
  } catch {
    // Not of that hierarchy.
  }
}

function tryRemove(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT', 'EBUSY', 'ENOTEMPTY')) throw error;
  }
}
