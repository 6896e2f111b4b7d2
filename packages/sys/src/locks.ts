/** flock(2): a lock on an open file that the kernel lets go of when its last descriptor closes, also by kill -9. */
import { check, native } from './libc.ts';

const flockCall = native('flock', ['int', 'int']);

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** Takes the lock for itself alone, without waiting. @throws SysError EAGAIN if somebody else holds it */
export function lockFile(fd: number): void {
  check('flock', flockCall(fd, LOCK_EX | LOCK_NB));
}

/** Takes the lock together with others who share it, without waiting; nobody has it alone meanwhile. @throws SysError EAGAIN if somebody does */
export function lockFileShared(fd: number): void {
  check('flock', flockCall(fd, LOCK_SH | LOCK_NB));
}
