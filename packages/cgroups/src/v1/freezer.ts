/** Stopping all of a v1 group's processes: freezer.state is asked and then read until it agrees (the kernel does not tell). */
import { setTimeout as sleep } from 'node:timers/promises';
import { failedPrecondition } from '@gantry/api';
import { readText, writeValue } from '../files.ts';
import type { FreezerState } from '../group.ts';

export async function freezerState(directory: string): Promise<FreezerState> {
  const state = (await readText(directory, 'freezer.state'))?.trim();
  return state === 'FROZEN' ? 'frozen' : state === 'FREEZING' ? 'freezing' : 'thawed';
}

/** Resolves when the group is in the asked state; FailedPrecondition if a process withstands for ten seconds. */
export async function setFrozen(directory: string, frozen: boolean): Promise<void> {
  const wanted: FreezerState = frozen ? 'frozen' : 'thawed';
  const end = performance.now() + 10_000;
  for (let wait = 1; ; wait = Math.min(wait * 2, 50)) {
    // Asked again each time: a process forked meanwhile can keep a group freezing until then.
    await writeValue(directory, 'freezer.state', frozen ? 'FROZEN' : 'THAWED');
    if ((await freezerState(directory)) === wanted) return;
    if (performance.now() > end) {
      if (frozen) await writeValue(directory, 'freezer.state', 'THAWED');
      throw failedPrecondition(`cgroup ${directory} could not be ${wanted}`);
    }
    await sleep(wait);
  }
}
