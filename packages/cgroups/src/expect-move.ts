import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { failedPrecondition } from '@gantry/api';
import type { Roots } from './files.ts';
import { cgroupDirectories } from './mode.ts';

let underWay: Promise<void> | undefined;
let refused = false;

/**
 * Says that a process will be moved into a cgroup within the next ten milliseconds or so: by `runc create`, `runc exec` and the like.
 *
 * The first move after a while waits for a grace period of the kernel's RCU, 5 to 10 ms on an idle machine and more on a busy one; moves
 * within some 15 ms after it do not wait. So the wait is had now, beside the start of the runtime, by a move that changes nothing: of this
 * process to the group that it is in. Returns at once and never fails; where it cannot be done nothing is won.
 */
export function expectCgroupMove(): void {
  if (refused || underWay) return;
  underWay = moveToOwnGroup()
    .catch(() => {
      // Read-only cgroups, or none of them mounted here: it will be so next time too.
      refused = true;
    })
    .finally(() => {
      underWay = undefined;
    });
}

/** Moves this process to the group that it is in. @throws FailedPrecondition where no cgroups are mounted; SysError */
export async function moveToOwnGroup(roots: Roots = {}): Promise<void> {
  // Read each time: whoever moves this process elsewhere shall not find it moved back.
  const { unified, controllers } = await cgroupDirectories('self', roots);
  const directory = controllers.values().next().value ?? unified;
  if (directory === undefined) throw failedPrecondition('no cgroups are mounted here');
  const file = await open(join(directory, 'cgroup.procs'), 'r+');
  try {
    await file.write('0');
  } finally {
    await file.close();
  }
}
