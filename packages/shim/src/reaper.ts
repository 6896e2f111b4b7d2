import { now, type Time } from '@gantry/api';
import {
  close,
  decodeStatus,
  hasErrno,
  onSigchld,
  pidfdGetInfo,
  pidfdOpen,
  reapOrphans,
  setSubreaper,
  waitpid,
  watchProcess,
  zombieStatus,
} from '@gantry/sys';
import { log } from './log.ts';

/** How a process ended. */
export interface ProcessExit {
  /** The exit code, or 128 + signal; 255 if nobody can tell any more. */
  exitStatus: number;
  at: Time;
}

/** What is reported of a process whose exit code the kernel does not give away: not a success. */
export const unknownExit = 255;

/** How long orphans may stay zombies, so that a burst of exits costs one walk through the children. */
const sweepDelayMs = 50;

/**
 * Learns of every exit below this process. Containers' processes are orphans that the kernel gives to us as their subreaper; each
 * is watched by its pidfd and collected by its own pid. Other orphans are collected on SIGCHLD; while an OCI runtime is at work
 * their exits are remembered, because one of them may be the process whose pid the runtime is about to tell.
 */
export class Reaper {
  readonly #watched = new Map<number, Promise<ProcessExit>>();
  readonly #pidfds = new Map<number, number>();
  readonly #remembered = new Map<number, ProcessExit>();
  #runtimesAtWork = 0;
  #sweep: NodeJS.Timeout | undefined;
  #stop: (() => void) | undefined;

  start(): void {
    setSubreaper(true);
    this.#stop = onSigchld(() => this.#schedule());
  }

  stop(): void {
    this.#stop?.();
    clearTimeout(this.#sweep);
  }

  /** Runs something that makes processes; exits of children that nobody knows yet are remembered until it is over. */
  async whileSpawning<T>(work: () => Promise<T>): Promise<T> {
    this.#runtimesAtWork++;
    try {
      return await work();
    } finally {
      if (--this.#runtimesAtWork === 0) this.#remembered.clear();
    }
  }

  /**
   * The exit of a process, child of ours or not. To be called inside whileSpawning for a process just made. Never rejects.
   * `pidfd` may be given by who has checked the process's identity with it; it is closed here. `at`: when it ended, if that is known.
   */
  watch(pid: number, pidfd?: number, at?: Time): Promise<ProcessExit> {
    const known = this.#watched.get(pid);
    if (known) return known;
    const exit = this.#follow(pid, pidfd, at).finally(() => this.#watched.delete(pid));
    this.#watched.set(pid, exit);
    return exit;
  }

  /** The descriptor by which a process is watched now; it stays the reaper's. */
  pidfdOf(pid: number): number | undefined {
    return this.#pidfds.get(pid);
  }

  async #follow(pid: number, given: number | undefined, known: Time | undefined): Promise<ProcessExit> {
    let pidfd: number;
    try {
      pidfd = given ?? pidfdOpen(pid);
    } catch (error) {
      const ended = this.#remembered.get(pid);
      if (ended) return ended;
      log.warn('process was gone before it could be watched', { pid, error });
      return { exitStatus: unknownExit, at: now() };
    }
    this.#pidfds.set(pid, pidfd);
    try {
      await watchProcess(pidfd, { unref: true });
      const at = known ?? now();
      return { exitStatus: await collect(pid, pidfd), at };
    } catch (error) {
      log.error('watching a process failed', { pid, error });
      return { exitStatus: unknownExit, at: now() };
    } finally {
      this.#pidfds.delete(pid);
      close(pidfd);
    }
  }

  #schedule(): void {
    this.#sweep ??= setTimeout(() => {
      this.#sweep = undefined;
      try {
        const at = now();
        for (const { pid, status } of reapOrphans((child) => this.#watched.has(child))) {
          log.debug('orphan collected', { pid, status });
          if (this.#runtimesAtWork > 0) this.#remembered.set(pid, { exitStatus: decodeStatus(status).exitStatus, at });
        }
      } catch (error) {
        log.error('collecting orphans failed', { error });
      }
    }, sweepDelayMs);
    this.#sweep.unref();
  }
}

/** The exit status of a process that has ended: by wait if it is our child, else as the kernel tells of a zombie or by its pidfd. */
async function collect(pid: number, pidfd: number): Promise<number> {
  try {
    const result = waitpid(pid, { nohang: true });
    if (result) return decodeStatus(result.status).exitStatus;
  } catch (error) {
    if (!hasErrno(error, 'ECHILD')) throw error;
  }
  let status = pidfdGetInfo(pidfd).exitStatus ?? zombieStatus(pidfd, pid) ?? pidfdGetInfo(pidfd).exitStatus;
  if (status !== undefined) return status;
  try {
    await watchProcess(pidfd, { reaped: true, unref: true, signal: AbortSignal.timeout(2000) });
  } catch {
    // Its parent does not collect it: no status then.
  }
  status = pidfdGetInfo(pidfd).exitStatus;
  return status ?? unknownExit;
}
