import { readdirSync } from 'node:fs';
import { check, native } from './libc.ts';

const prctlCall = native('prctl', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);

const PR_SCHED_CORE = 62;
const CREATE = 1;
const SHARE_FROM = 3;
/** The calls are about one thread. */
const PIDTYPE_PID = 0;

/** The cookie of a thread decides who may run beside it on the threads of one processor core. */
function schedCore(command: number, pid: number): void {
  check('prctl', prctlCall(PR_SCHED_CORE, command, pid, PIDTYPE_PID, 0));
}

/**
 * Starts something in a core scheduling domain of its own ('new'), or in that of another process: what the calling thread has at the
 * moment of the start is inherited, and its own comes back afterwards. `start` must be synchronous.
 * @throws SysError EINVAL where the kernel has no core scheduling, ENODEV where the processor has one thread a core
 */
export function inSchedCore<T>(domain: 'new' | number, start: () => T): T {
  if (domain === 'new') schedCore(CREATE, 0);
  else schedCore(SHARE_FROM, domain);
  try {
    return start();
  } finally {
    const other = readdirSync('/proc/self/task').find((tid) => Number(tid) !== process.pid);
    if (other !== undefined) schedCore(SHARE_FROM, Number(other));
  }
}
