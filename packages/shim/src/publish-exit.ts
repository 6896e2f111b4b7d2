import { toTimestamp } from '@gantry/api';
import { TaskExitSchema } from '@gantry/api/gen/events/task_pb.js';
import type { ProcessExit } from './reaper.ts';
import type { ShimContext } from './shim-context.ts';
import type { TaskProcess } from './task-process.ts';

/** Tells the daemon that a process has ended. */
export function publishExit(
  context: ShimContext,
  { namespace, id }: { namespace: string; id: string },
  process: TaskProcess,
  exit: ProcessExit,
): void {
  context.publisher.publish(namespace, '/tasks/exit', TaskExitSchema, {
    containerId: id,
    id: process.execId || id,
    pid: process.pid,
    exitStatus: exit.exitStatus,
    exitedAt: toTimestamp(exit.at),
  });
}
