/** User namespaces held by a descriptor, for idmapped mounts: made in a copy of this process that only sleeps. */
import { writeFileSync } from 'node:fs';
import { AT_FDCWD, CLONE, O } from './constants.ts';
import { openat } from './files.ts';
import { addressOf, check, native } from './libc.ts';
import { kill, waitpid } from './processes.ts';

const dlsymCall = native('dlsym', ['uint64_t', 'str'], 'uint64_t');
const cloneCall = native('clone', ['uint64_t', 'uint64_t', 'int', 'uint64_t']);

/** One line of /proc/<pid>/uid_map: `size` ids from `container` inside are those from `host` outside. */
export interface IdMapping {
  container: number;
  host: number;
  size: number;
}

const mapText = (map: readonly IdMapping[]) =>
  map.map(({ container, host, size }) => `${container} ${host} ${size}\n`).join('');

/**
 * A descriptor of a new user namespace with these maps. A process with more than one thread cannot unshare its user namespace, so
 * libc's clone runs libc's sleep in a copy of this process; no JavaScript runs there, it is killed at once and would end by itself.
 */
export function createUserNamespace(uidMap: readonly IdMapping[], gidMap: readonly IdMapping[]): number {
  const stack = Buffer.alloc(65536);
  const top = (addressOf(stack) + 65536n) & ~15n;
  const sleep = dlsymCall(0, 'sleep');
  const SIGCHLD = 17;
  const pid = check('clone', cloneCall(sleep, top, CLONE.NEWUSER | SIGCHLD, 10));
  try {
    writeFileSync(`/proc/${pid}/uid_map`, mapText(uidMap));
    writeFileSync(`/proc/${pid}/gid_map`, mapText(gidMap));
    return openat(AT_FDCWD, `/proc/${pid}/ns/user`, O.RDONLY);
  } finally {
    kill(pid, 9);
    waitpid(pid);
    stack.fill(0);
  }
}
