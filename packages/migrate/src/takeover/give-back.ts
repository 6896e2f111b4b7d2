// The way back: this daemon stops and lets go of what it took; containerd's own files are as they were.
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { deadlineExceeded, failedPrecondition, formatTime, now } from '@gantry/api';
import { LmdbStore } from '@gantry/daemon/core/metadata/lmdb-store.ts';
import { readTakeover, type TakeoverState, writeTakeover } from '@gantry/daemon/core/takeover/takeover-state.ts';
import { lockRoot } from '@gantry/daemon/server/lock.ts';
import { readMetadata } from '../containerd/metadata.ts';
import type { GantryPlace } from '../places.ts';
import { bundlesIn } from '../survey.ts';
import { type Difference, differences } from './differences.ts';
import { dropTakenPods } from './take-pods.ts';
import { dropTakenTasks, ownTasks } from './take-tasks.ts';
import { openMetadata } from './takeover.ts';

export interface GivenBack {
  from: TakeoverState['from'];
  /** The process that was stopped, if the daemon ran. */
  stopped: number | undefined;
  differences: Difference[];
}

const patience = 60_000;

/**
 * Stops the daemon of this root and makes it unfit for another until the next takeover; containers go on. Can be done again if it was
 * cut off, and gives up a takeover that was.
 * @throws StatusError FailedPrecondition if nothing was taken over, or containerd runs already; DeadlineExceeded if the daemon does not stop
 */
export async function giveBack(to: GantryPlace): Promise<GivenBack> {
  const before = readTakeover(to.root);
  if (!before) throw failedPrecondition(`${to.root}: nothing was taken over from containerd, so nothing can go back`);
  // First, lest whoever looks after the daemon start it again.
  if (before.phase !== 'back') writeTakeover(to.root, { ...before, phase: 'back', at: formatTime(now()) });
  const { unlock, stopped } = await stopDaemon(to.root);
  try {
    using file = openMetadata(before.metadata.file);
    const metadata = readMetadata(file);
    const tasks = ownTasks(to.bundles);
    const mine = new Set(tasks.map(({ namespace, id }) => `${namespace}/${id}`));
    const theirs = bundlesIn(path.join(before.from.state, 'io.containerd.runtime.v2.task'));
    const ended = theirs.filter(({ namespace, id }) => !mine.has(`${namespace}/${id}`));
    const found = existsSync(to.metadataFile)
      ? await withStore(to.metadataFile, (store) => store.view((tx) => differences(tx, metadata, tasks, ended)))
      : [];
    dropTakenTasks(to);
    await dropTakenPods(metadata, to);
    return { from: before.from, stopped, differences: found };
  } finally {
    unlock();
  }
}

async function withStore<T>(file: string, use: (store: LmdbStore) => T): Promise<T> {
  const store = await LmdbStore.open({ path: file });
  try {
    return use(store);
  } finally {
    await store.close();
  }
}

/** Takes the root's lock, asking whoever has it to end. */
async function stopDaemon(root: string): Promise<{ unlock: () => void; stopped: number | undefined }> {
  const end = performance.now() + patience;
  let stopped: number | undefined;
  for (;;) {
    try {
      return { unlock: lockRoot(root), stopped };
    } catch (error) {
      const pid = Number(readFileSync(path.join(root, 'gantryd.lock'), 'utf8'));
      if (!Number.isInteger(pid) || pid <= 1) throw error;
      if (stopped !== pid && isAlive(pid)) process.kill(pid, 'SIGTERM');
      stopped = pid;
      if (performance.now() > end)
        throw deadlineExceeded(`gantryd (process ${pid}) did not stop in ${patience / 1000} s`, error);
      await sleep(50);
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
