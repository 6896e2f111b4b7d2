import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode } from '@gantry/api';
import type { Task } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { removeAllBeneath } from '@gantry/mount';
import { hasErrno } from '@gantry/sys';
import { type Cri, dirs } from '../cri.ts';

/** What `execProcess` names the directory of its streams. */
const execDirectory = /^io-([0-9a-f]{64})$/;

const SIGKILL = 9;
/** How long a killed process may take to be gone. */
const endMs = 30_000;
const pollMs = 50;

/**
 * Ends what a killed daemon has run in a container for exec: whoever asked for it has lost the connection, nobody reads what it says, and
 * its time-out is nobody's to keep. Execs of other clients have no directory here and go on.
 */
export async function endLeftExecs(cri: Cri, containerId: string, task: Task | undefined): Promise<void> {
  const directory = dirs.containerState(cri, containerId);
  const names = namesIn(directory);
  await Promise.all(
    names.map(async (name) => {
      const execId = execDirectory.exec(name)?.[1];
      if (execId === undefined) return;
      if (task) await endExec(cri, task, execId);
      await removeAllBeneath(`${directory}/${name}`);
    }),
  );
}

/** The state is in memory, where a system call costs less than a thread to wait for it. */
function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

async function endExec(cri: Cri, task: Task, execId: string): Promise<void> {
  for (const deadline = performance.now() + endMs; ; await sleep(pollMs, undefined, { ref: false })) {
    // One that was never started cannot be killed, and need not be.
    await task.kill(execId, SIGKILL, true).catch(() => undefined);
    try {
      await task.deleteProcess(execId);
      cri.log.info('exec of an earlier daemon is ended', { id: task.id, exec: execId });
      return;
    } catch (error) {
      if (hasCode(error, Code.NotFound) || cri.closing.aborted) return;
      if (performance.now() > deadline) throw error;
    }
  }
}
