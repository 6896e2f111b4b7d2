/** Processes by pidfd, their exit codes, limits and namespaces. Never waits for "any child": libuv waits for its own. */
import { readdirSync, readFileSync } from 'node:fs';
import { constants, release } from 'node:os';
import { PR } from './constants.ts';
import { hasErrno } from './error.ts';
import { check, cstring, lastErrno, native, sysError } from './libc.ts';
import { poll } from './pipes.ts';
import { readable } from './watch.ts';

const pidfdOpenCall = native('syscall', ['long', 'int', 'uint'], 'long');
const pidfdSignalCall = native('syscall', ['long', 'int', 'int', 'ptr', 'uint'], 'long');
const pidfdGetfdCall = native('syscall', ['long', 'int', 'int', 'uint'], 'long');
const killCall = native('kill', ['int', 'int']);
const waitpidCall = native('waitpid', ['int', 'ptr', 'int']);
const prctlCall = native('prctl', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);
const prctlPtr = native('prctl', ['int', 'ptr', 'ulong', 'ulong', 'ulong']);
const prlimitCall = native('prlimit', ['int', 'int', 'ptr', 'ptr']);
const setnsCall = native('setns', ['int', 'int']);
const unshareCall = native('unshare', ['int']);
const ioctlCall = native('ioctl', ['int', 'ulong', 'ptr']);

/** A descriptor of a process, which no later process with the same number can be mistaken for. ESRCH if there is none. */
export function pidfdOpen(pid: number): number {
  return check('pidfd_open', pidfdOpenCall(434, pid, 0), String(pid));
}

export function pidfdSendSignal(fd: number, signal: number | string): void {
  check('pidfd_send_signal', pidfdSignalCall(424, fd, signalNumber(signal), null, 0));
}

/** A copy of another process's descriptor. */
export function pidfdGetFd(pidfd: number, fd: number): number {
  return check('pidfd_getfd', pidfdGetfdCall(438, pidfd, fd, 0));
}

export function kill(pid: number, signal: number | string): void {
  check('kill', killCall(pid, signalNumber(signal)), String(pid));
}

/** What the kernel tells of a process behind a pidfd. */
export interface PidfdInfo {
  /** 0 once it has been reaped. */
  pid: number;
  exited: boolean;
  /** 128 + signal if killed. Known only after its parent reaped it, on Linux 6.15 and later. */
  exitStatus?: number;
}

/** PIDFD_GET_INFO; on kernels without it only whether the process has ended. */
export function pidfdGetInfo(fd: number): PidfdInfo {
  const exited = (poll([{ fd, events: 1 }])[0] ?? 0) !== 0;
  const info = Buffer.alloc(64);
  info.writeBigUInt64LE(0b1001n, 0);
  if (ioctlCall(fd, 0xc040ff0b, info) >= 0) {
    const pid = info.readUInt32LE(16);
    if ((info.readBigUInt64LE(0) & 8n) === 0n) return { pid, exited };
    return { pid: 0, exited: true, exitStatus: decodeStatus(info.readInt32LE(60)).exitStatus };
  }
  const errno = lastErrno();
  if (errno === 3) return { pid: 0, exited: true };
  if (errno !== 25 && errno !== 22) throw sysError('ioctl PIDFD_GET_INFO', errno);
  const pid = Number(/^Pid:\s*(-?\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? 0);
  return { pid: Math.max(pid, 0), exited: exited || pid <= 0 };
}

/**
 * The exit status of a process that has ended and that its parent, who is not us, has not collected yet (/proc/<pid>/stat). Undefined
 * for others, and where that would have to be believed of a kernel that tells a main thread's 0 for the whole process.
 */
export function zombieStatus(pidfd: number, pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // Asked after the look: as long as it is not collected, nobody else has its number.
    if (fields[0] !== 'Z' || pidfdGetInfo(pidfd).pid !== pid) return undefined;
    const { exitStatus } = decodeStatus(Number(fields[49]));
    return exitStatus === 0 && !tellsOfGroups ? undefined : exitStatus;
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ESRCH')) return undefined;
    throw error;
  }
}

const tellsOfGroups = ((): boolean => {
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  return major > 6 || (major === 6 && minor >= 15);
})();

/**
 * Resolves when the process behind a pidfd (anybody's child) has ended; with `reaped`, when its parent has also collected it, so
 * that pidfdGetInfo knows its exit status.
 */
export async function watchProcess(
  pidfd: number,
  options: { reaped?: boolean; unref?: boolean; signal?: AbortSignal } = {},
): Promise<void> {
  const { reaped, ...rest } = options;
  await readable(pidfd, { ...rest, ...(reaped ? { hangup: true } : {}) });
}

/** Collects one child of ours by number. Undefined with `nohang` while it runs; ECHILD if it is not (or no longer) our child. */
export function waitpid(pid: number, options: { nohang?: boolean } = {}): { pid: number; status: number } | undefined {
  if (pid <= 0) throw sysError('waitpid', 22, String(pid));
  const status = Buffer.alloc(4);
  for (;;) {
    const result = waitpidCall(pid, status, options.nohang ? 1 : 0);
    if (result > 0) return { pid: result, status: status.readInt32LE(0) };
    if (result === 0) return undefined;
    if (lastErrno() !== 4) throw sysError('waitpid', lastErrno(), String(pid));
  }
}

/** A wait status apart: `code` or `signal`; `exitStatus` is what containerd reports, 128 + signal for a kill. */
export interface ExitCode {
  code: number | undefined;
  signal: number | undefined;
  exitStatus: number;
}

export function decodeStatus(status: number): ExitCode {
  const signal = status & 0x7f;
  if (signal) return { code: undefined, signal, exitStatus: 128 + signal };
  const code = (status >> 8) & 0xff;
  return { code, signal: undefined, exitStatus: code };
}

/** Makes orphans among our descendants our children. */
export function setSubreaper(on: boolean): void {
  prctl(PR.SET_CHILD_SUBREAPER, on ? 1 : 0);
}

export function prctl(option: number, argument: number | string): number {
  if (typeof argument === 'string') return check('prctl', prctlPtr(option, cstring(argument), 0, 0, 0));
  return check('prctl', prctlCall(option, argument, 0, 0, 0));
}

/** The numbers of all our children, of every thread, zombies included. */
export function listChildren(): number[] {
  const pids: number[] = [];
  for (const task of readdirSync('/proc/self/task')) {
    try {
      for (const pid of readFileSync(`/proc/self/task/${task}/children`, 'utf8').split(' '))
        if (pid) pids.push(Number(pid));
    } catch (error) {
      // A thread that ended since the listing hands its children to another.
      if (!hasErrno(error, 'ENOENT', 'ESRCH')) throw error;
    }
  }
  return pids;
}

/** Calls back when children may have ended (signals coalesce). Returns how to stop. */
export function onSigchld(listener: () => void): () => void {
  process.on('SIGCHLD', listener);
  return () => {
    process.off('SIGCHLD', listener);
  };
}

/** A soft and a hard limit; Infinity is no limit. */
export interface Rlimit {
  soft: number;
  hard: number;
}

const unlimited = 0xffffffffffffffffn;

/** Reads and, if `limit` is given, sets a limit (RLIMIT) of a process (0: this one). Returns what it was. */
export function prlimit(pid: number, resource: number, limit?: Rlimit): Rlimit {
  const old = Buffer.alloc(16);
  let fresh: Buffer | null = null;
  if (limit) {
    fresh = Buffer.alloc(16);
    fresh.writeBigUInt64LE(Number.isFinite(limit.soft) ? BigInt(limit.soft) : unlimited, 0);
    fresh.writeBigUInt64LE(Number.isFinite(limit.hard) ? BigInt(limit.hard) : unlimited, 8);
  }
  check('prlimit', prlimitCall(pid, resource, fresh, old));
  const read = (at: number) => {
    const value = old.readBigUInt64LE(at);
    return value === unlimited ? Number.POSITIVE_INFINITY : Number(value);
  };
  return { soft: read(0), hard: read(8) };
}

export function getrlimit(resource: number): Rlimit {
  return prlimit(0, resource);
}

export function setrlimit(resource: number, limit: Rlimit): void {
  prlimit(0, resource, limit);
}

const realtime = /^RTMIN(?:\+(\d+))?$|^RTMAX(?:-(\d+))?$/;

/** `9`, `"9"`, `"KILL"`, `"SIGKILL"`, `"sigrtmin+3"` → the number. EINVAL for what is no signal. */
export function signalNumber(signal: number | string): number {
  if (typeof signal === 'number') return signal;
  if (/^\d+$/.test(signal)) return Number(signal);
  const name = signal.toUpperCase().replace(/^SIG/, '');
  const number = (constants.signals as Record<string, number>)[`SIG${name}`];
  if (number !== undefined) return number;
  const match = realtime.exec(name);
  if (match) return name.startsWith('RTMIN') ? 34 + Number(match[1] ?? 0) : 64 - Number(match[2] ?? 0);
  throw sysError('signal', 22, signal);
}

/** Enters a namespace with this thread only. Synchronous work alone belongs between this and the way back. */
export function setns(fd: number, type: number): void {
  check('setns', setnsCall(fd, type));
}

/** Gives this thread namespaces of its own (CLONE). */
export function unshare(flags: number): void {
  check('unshare', unshareCall(flags));
}
