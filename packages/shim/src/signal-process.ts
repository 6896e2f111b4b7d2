import { failedPrecondition, notFound, unknown } from '@gantry/api';
import { close, hasErrno, pidfdOpen, pidfdSendSignal } from '@gantry/sys';
import { processStartTime } from './record.ts';
import type { TaskProcess } from './task-process.ts';

/**
 * Sends a signal to a process and to no other that has its number by now.
 * @throws StatusError NotFound once it has ended, FailedPrecondition before it exists, Unknown for a number that is no signal
 */
export function signalProcess(process: TaskProcess, signal: number): void {
  if (process.pid === 0) throw failedPrecondition('process not created');
  if (process.exit) throw notFound('process already finished: not found');
  try {
    const pidfd = pidfdOpen(process.pid);
    try {
      // Until its exit is noted a child of ours keeps its number; an adopted process may have lost it to another.
      if (processStartTime(process.pid) !== process.startTime) throw notFound('process already finished: not found');
      pidfdSendSignal(pidfd, signal);
    } finally {
      close(pidfd);
    }
  } catch (error) {
    if (hasErrno(error, 'EINVAL'))
      throw unknown('unknown error after kill: unable to signal init: invalid argument', error);
    if (hasErrno(error, 'ESRCH')) throw notFound('process already finished: not found', error);
    throw error;
  }
}
