/**
 * Children started by posix_spawn(3) and watched by pidfd: not libuv's, so that nothing but stdio, default signals and the
 * recorded descriptor limit reaches an OCI runtime, and so that one process can hold thousands.
 */
import { accessSync, constants } from 'node:fs';
import { AT_FDCWD, O, RLIMIT } from './constants.ts';
import { hasErrno } from './error.ts';
import { close, dupFd, openat } from './files.ts';
import { cstring, cstringArray, native, type Path, sysError } from './libc.ts';
import {
  decodeStatus,
  type ExitCode,
  kill,
  listChildren,
  pidfdGetInfo,
  pidfdOpen,
  prlimit,
  type Rlimit,
  waitpid,
  watchProcess,
} from './processes.ts';

const spawnCall = native('posix_spawnp', ['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr']);
const attrInit = native('posix_spawnattr_init', ['ptr']);
const attrDestroy = native('posix_spawnattr_destroy', ['ptr']);
const attrFlags = native('posix_spawnattr_setflags', ['ptr', 'int16_t']);
const attrMask = native('posix_spawnattr_setsigmask', ['ptr', 'ptr']);
const attrDefault = native('posix_spawnattr_setsigdefault', ['ptr', 'ptr']);
const actionsInit = native('posix_spawn_file_actions_init', ['ptr']);
const actionsDestroy = native('posix_spawn_file_actions_destroy', ['ptr']);
const actionsDup2 = native('posix_spawn_file_actions_adddup2', ['ptr', 'int', 'int']);
const actionsChdir = native('posix_spawn_file_actions_addchdir_np', ['ptr', 'ptr']);
const actionsCloseFrom = native('posix_spawn_file_actions_addclosefrom_np', ['ptr', 'int']);

const SETSIGDEF = 0x04;
const SETSIGMASK = 0x08;
const SETSID = 0x80;

export interface SpawnOptions {
  /** A path, or a name looked up in this process's PATH. */
  file: string;
  /** Arguments after argv[0]. */
  args?: readonly Path[];
  /** argv[0] if not `file`. */
  argv0?: string;
  /** The whole environment (this process's own by default). */
  env?: Readonly<Record<string, string | undefined>>;
  cwd?: string;
  /** Descriptors for 0, 1, 2; null is /dev/null. They stay open here. */
  stdio?: readonly [number | null, number | null, number | null];
  /** Further descriptors that become 3, 4, … in the child (runc's --preserve-fds, a shim's socket). */
  extraFds?: readonly number[];
  /** A session (and process group) of its own. */
  setsid?: boolean;
  /** The limit on descriptors that the child gets; Node raised this process's own, so pass what was recorded before. */
  nofile?: Rlimit;
}

/** A running child. `pidfd` is closed by waitExit, or by whoever does not call that. */
export interface Child {
  readonly pid: number;
  readonly pidfd: number;
}

/** How and when a child ended. */
export interface Exit extends ExitCode {
  at: { seconds: bigint; nanos: number };
}

const awaited = new Set<number>();

function ok(what: string, errno: number, path?: Path): void {
  if (errno !== 0) throw sysError(what, errno, path);
}

/**
 * Starts a program. The child has the given stdio, no other descriptor, no blocked or ignored signal. Throws SysError (ENOENT,
 * EACCES, …) if the program cannot be executed. Takes about a millisecond on the calling thread.
 */
export function spawn(options: SpawnOptions): Child {
  const limit = options.nofile && ownLimit(options.nofile);
  // A limit is inherited at the fork: ours is lowered for just the synchronous moment of it, unless other threads, which may
  // open files in that moment, already hold nearly as many as it allows; then a shell lowers it and becomes the program.
  const lower = limit !== undefined && lowestFree() + 64 < limit.soft;
  const { file, argv0, args } = limit && !lower ? limited(options, limit) : options;
  const argv = cstringArray([argv0 ?? file, ...(args ?? [])]);
  const environment = Object.entries(options.env ?? process.env).filter(([, value]) => value !== undefined);
  const envp = cstringArray(environment.map(([name, value]) => `${name}=${value}`));
  const attributes = Buffer.alloc(512);
  const actions = Buffer.alloc(256);
  const opened: number[] = [];
  const keep: Buffer[] = [];
  ok('posix_spawnattr_init', attrInit(attributes));
  ok('posix_spawn_file_actions_init', actionsInit(actions));
  try {
    const noSignals = Buffer.alloc(128);
    ok('posix_spawnattr_setsigmask', attrMask(attributes, noSignals));
    ok('posix_spawnattr_setsigdefault', attrDefault(attributes, Buffer.alloc(128, 0xff)));
    ok('posix_spawnattr_setflags', attrFlags(attributes, SETSIGDEF | SETSIGMASK | (options.setsid ? SETSID : 0)));
    const wanted = [...(options.stdio ?? [null, null, null]), ...(options.extraFds ?? [])];
    // Copies above all targets, so that one dup2 does not overwrite the source of the next.
    const sources = wanted.map((fd) => {
      if (fd !== null && fd >= wanted.length) return fd;
      let copy: number;
      if (fd === null) {
        const nothing = openat(AT_FDCWD, '/dev/null', O.RDWR | O.NOCTTY);
        opened.push(nothing);
        copy = nothing >= wanted.length ? nothing : dupFd(nothing, wanted.length);
        if (copy === nothing) return copy;
      } else copy = dupFd(fd, wanted.length);
      opened.push(copy);
      return copy;
    });
    sources.forEach((fd, target) => {
      ok('posix_spawn_file_actions_adddup2', actionsDup2(actions, fd, target));
    });
    ok('posix_spawn_file_actions_addclosefrom_np', actionsCloseFrom(actions, wanted.length));
    if (options.cwd !== undefined) {
      const cwd = cstring(options.cwd);
      keep.push(cwd);
      ok('posix_spawn_file_actions_addchdir_np', actionsChdir(actions, cwd));
    }
    const before = lower ? prlimit(0, RLIMIT.NOFILE, limit) : undefined;
    const number = Buffer.alloc(4);
    try {
      ok('spawn', spawnCall(number, cstring(file), actions, attributes, argv.pointers, envp.pointers), options.file);
    } finally {
      if (before) prlimit(0, RLIMIT.NOFILE, before);
    }
    return adopt(number.readInt32LE(0));
  } finally {
    actionsDestroy(actions);
    attrDestroy(attributes);
    for (const fd of opened) close(fd);
    keep.length = argv.keep.length = envp.keep.length = 0;
  }
}

// A child that could not be watched must not run on unknown to everybody.
function adopt(pid: number): Child {
  try {
    const pidfd = pidfdOpen(pid);
    awaited.add(pid);
    return { pid, pidfd };
  } catch (error) {
    kill(pid, 9);
    waitpid(pid);
    throw error;
  }
}

/** The same program by way of a shell that sets the limit: before the program's first instruction, and without touching ours. */
function limited({ file, args }: SpawnOptions, { soft, hard }: Rlimit): SpawnOptions {
  // The shell would say it with an exit code only.
  if (file.includes('/')) accessSync(file, constants.X_OK);
  const script = `ulimit -S -n ${soft} && ulimit -H -n ${hard} && exec "$0" "$@"`;
  return { file: '/bin/sh', args: ['-c', script, file, ...(args ?? [])] };
}

function lowestFree(): number {
  const fd = openat(AT_FDCWD, '/', O.PATH);
  close(fd);
  return fd;
}

// Without CAP_SYS_RESOURCE a lowered hard limit could never be raised again.
function ownLimit(limit: Rlimit): Rlimit {
  const mine = prlimit(0, RLIMIT.NOFILE);
  if (limit.hard === mine.hard || process.geteuid?.() === 0) return limit;
  return { soft: Math.min(limit.soft, mine.hard), hard: mine.hard };
}

/** The clock of exits: wall time with nanoseconds. */
function clock(): { seconds: bigint; nanos: number } {
  const millis = performance.timeOrigin + performance.now();
  const seconds = Math.floor(millis / 1000);
  return { seconds: BigInt(seconds), nanos: Math.min(999_999_999, Math.round((millis - seconds * 1000) * 1e6)) };
}

/** Waits for the end of a child from spawn, reaps it and closes its pidfd. Costs no thread. */
export async function waitExit(child: Child, options: { unref?: boolean } = {}): Promise<Exit> {
  await watchProcess(child.pidfd, options);
  const at = clock();
  try {
    return { ...reap(child), at };
  } finally {
    awaited.delete(child.pid);
    close(child.pidfd);
  }
}

function reap(child: Child): ExitCode {
  try {
    const result = waitpid(child.pid, { nohang: true });
    if (result) return decodeStatus(result.status);
    throw sysError('waitpid', 11, String(child.pid));
  } catch (error) {
    if (!hasErrno(error, 'ECHILD')) throw error;
    // Somebody else collected it; the kernel may still know its code.
    const { exitStatus } = pidfdGetInfo(child.pidfd);
    if (exitStatus === undefined) throw error;
    return exitStatus > 128
      ? { code: undefined, signal: exitStatus - 128, exitStatus }
      : { code: exitStatus, signal: undefined, exitStatus };
  }
}

/** Whether this pid is a child from spawn whose waitExit is to come. */
export function isAwaited(pid: number): boolean {
  return awaited.has(pid);
}

/**
 * Collects children that ended and are neither from spawn nor known to the caller (`isKnown` must say yes to libuv's children and
 * to those awaited by other means). For subreapers, on SIGCHLD and once after every registration.
 */
export function reapOrphans(isKnown: (pid: number) => boolean): { pid: number; status: number }[] {
  const reaped: { pid: number; status: number }[] = [];
  for (const pid of listChildren()) {
    if (awaited.has(pid) || isKnown(pid)) continue;
    try {
      const result = waitpid(pid, { nohang: true });
      if (result) reaped.push(result);
    } catch (error) {
      // Collected meanwhile by another thread.
      if (!hasErrno(error, 'ECHILD')) throw error;
    }
  }
  return reaped;
}
