import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { close, hasErrno, kill, pidfdOpen, watchProcess } from '@gantry/sys';
import { log } from './log.ts';

/** How long an OCI runtime whose shim has died may take to complete what it does. */
const completeMs = 5000;
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
 * Sees to the end of what an OCI runtime was doing for a container when its shim died, so that it does not complete behind the back of
 * the next one. It is given time, because one that is killed leaves what it has not written down yet: a cgroup, a process. Processes that
 * an unfinished exec had put into the container go: nobody was ever told of them.
 */
export async function endInFlight(bundle: string, inFlight: string): Promise<void> {
  await Promise.all(
    runtimesAtWork(bundle).map(async (pid) => {
      log.info('waiting for an OCI runtime left at work', { pid, bundle, inFlight });
      if (!(await endsWithin(pid, completeMs))) await killAndWait(pid);
    }),
  );
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
    for (const end = performance.now() + goneMs; performance.now() < end; await sleep(10)) {
      kill(pid, 'SIGKILL');
      if (/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) return;
    }
  } catch (error) {
    if (!hasErrno(error, 'ESRCH', 'ENOENT')) throw error;
  }
}

async function endsWithin(pid: number, timeoutMs: number): Promise<boolean> {
  let pidfd: number;
  try {
    pidfd = pidfdOpen(pid);
  } catch (error) {
    if (hasErrno(error, 'ESRCH')) return true;
    throw error;
  }
  try {
    await watchProcess(pidfd, { signal: AbortSignal.timeout(timeoutMs) });
    return true;
  } catch {
    return false;
  } finally {
    close(pidfd);
  }
}
