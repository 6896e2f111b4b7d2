import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasErrno, kill } from '@gantry/sys';
import { log } from './log.ts';

/** How long a killed process may take to be gone. */
const goneMs = 2000;

/** Calls of OCI runtimes that a dead shim had under way for a bundle, found by the log file that each call names. */
export function runtimesAtWork(bundle: string): number[] {
  const mark = Buffer.from(`\0--log\0${path.join(bundle, 'log.json')}\0`);
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`).includes(mark);
      } catch {
        return false;
      }
    })
    .map(Number);
}

/**
 * Ends what an OCI runtime was doing for a container when its shim died, so that it does not complete behind the back of the next
 * one. Processes that an unfinished exec had already put into the container go too: nobody was ever told of them.
 */
export async function endInFlight(bundle: string, inFlight: string): Promise<void> {
  for (const pid of runtimesAtWork(bundle)) {
    log.info('ending an OCI runtime left at work', { pid, bundle, inFlight });
    await killAndWait(pid);
  }
  for (const name of inFlight.split(',')) {
    const execId = /^exec (.+)$/.exec(name)?.[1];
    if (execId === undefined) continue;
    const pidFile = path.join(bundle, `exec-${execId}.pid`);
    try {
      const pid = Number.parseInt(readFileSync(pidFile, 'utf8'), 10);
      if (pid > 1) await killAndWait(pid);
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw error;
    }
    for (const file of [pidFile, path.join(bundle, `exec-${execId}.json`)]) rmSync(file, { force: true });
  }
}

async function killAndWait(pid: number): Promise<void> {
  try {
    for (const end = Date.now() + goneMs; Date.now() < end; await sleep(10)) {
      kill(pid, 'SIGKILL');
      if (/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) return;
    }
  } catch (error) {
    if (!hasErrno(error, 'ESRCH', 'ENOENT')) throw error;
  }
}
