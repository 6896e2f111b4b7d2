/** flock(2): an exclusive lock on an open file that the kernel lets go of when its last descriptor closes, also by kill -9. */
import { check, native } from './libc.ts';

const flockCall = native('flock', ['int', 'int']);

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Takes the lock without waiting. @throws SysError EAGAIN if somebody else holds it */
export function lockFile(fd: number): void {
  check('flock', flockCall(fd, LOCK_EX | LOCK_NB));
}
