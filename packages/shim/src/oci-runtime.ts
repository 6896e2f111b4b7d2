import { createHash } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import path from 'node:path';
import { StatusError, traced, unknown } from '@gantry/api';
import { type Child, getrlimit, inSchedCore, RLIMIT, type Rlimit, SysError, spawn, waitExit } from '@gantry/sys';
import type { RuntimeOptions } from './runtime-options.ts';

/** How to call one OCI runtime for the containers of one namespace. Plain data, so that it can be kept on disk. */
export interface RuntimeCommand {
  /** Name or path of the binary. */
  binary: string;
  /** `--root`: the state directory, one for each namespace. */
  root: string;
  systemdCgroup: boolean;
}

/** Descriptors of a runtime call: 0, 1, 2; null is /dev/null. */
export type Stdio = readonly [number | null, number | null, number | null];

export interface RunOptions {
  stdio?: Stdio;
  /** Where the runtime writes its own errors; read again if it fails. */
  logFile: string;
  /** A call that makes a process: in a core scheduling domain of its own, or in that of another process. */
  core?: 'new' | number;
  /** A command that prints: its output is returned. */
  capture?: boolean;
}

/** Runtimes whose container processes are host processes, so that their signals and cgroups can be used directly. */
const nativeRuntimes = new Set(['runc', 'crun', 'youki']);

/** The command for a container's options. */
export function runtimeCommand(options: RuntimeOptions, namespace: string): RuntimeCommand {
  return {
    binary: options.binaryName || defaultBinary(),
    root: path.join(options.root || defaultRoot(), namespace),
    systemdCgroup: options.systemdCgroup,
  };
}

/** The command where nothing is known of a container's options. */
export function runtimeOf(namespace: string): RuntimeCommand {
  return { binary: defaultBinary(), root: path.join(defaultRoot(), namespace), systemdCgroup: false };
}

/** One state directory for each daemon: two of them on one machine may each have a container of the same name. */
function defaultRoot(): string {
  const daemon = createHash('sha256')
    .update(process.env['TTRPC_ADDRESS'] ?? '')
    .digest('hex');
  return path.join(process.env['GANTRY_RUNTIME_ROOT'] || '/run/gantry/runc', daemon.slice(0, 12));
}

let foundDefault: string | undefined;

/** GANTRY_RUNTIME, else the first of runc and crun that is installed. */
export function defaultBinary(): string {
  foundDefault ??= process.env['GANTRY_RUNTIME'] || ['runc', 'crun'].find((name) => lookPath(name)) || 'runc';
  return foundDefault;
}

export function isNative(command: RuntimeCommand): boolean {
  return nativeRuntimes.has(path.basename(command.binary));
}

const found = new Map<string, string>();

/** The file that a command name stands for, as execvp would find it; where it was found before is looked at first. */
export function lookPath(name: string): string | undefined {
  const before = found.get(name);
  if (before !== undefined && isExecutable(before)) return before;
  const candidates = name.includes('/')
    ? [name]
    : (process.env['PATH'] ?? '').split(':').map((dir) => path.join(dir, name));
  const file = candidates.find(isExecutable);
  if (file !== undefined) found.set(name, file);
  return file;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/**
 * The limit on descriptors before Node raised its own, as the launcher noted it in GANTRY_NOFILE. Only the soft one: Node leaves the
 * hard one alone, and without CAP_SYS_RESOURCE it could not be put back.
 */
function recordedNofile(): Rlimit | undefined {
  const text = process.env['GANTRY_NOFILE'] ?? '';
  if (!/^(\d+|unlimited)$/.test(text)) return undefined;
  const { hard } = getrlimit(RLIMIT.NOFILE);
  return { soft: Math.min(hard, text === 'unlimited' ? hard : Number(text)), hard };
}

const nofile = recordedNofile();
let environment: Record<string, string | undefined> | undefined;

/** What runtimes inherit: our environment without what is ours alone. */
function runtimeEnvironment(): Record<string, string | undefined> {
  environment ??= Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('GANTRY_') && name !== 'NODE_OPTIONS'),
  );
  return environment;
}

/**
 * `runc exec` does one thing after the other: with one processor for its Go code it takes 5 % less of the processors. Its process gets the
 * environment of its own document only, and unlike `create` it runs no hook that could inherit ours.
 */
function environmentOf(command: RuntimeCommand, verb: string | undefined): Record<string, string | undefined> {
  const own = runtimeEnvironment();
  return verb === 'exec' && path.basename(command.binary) === 'runc' ? { GOMAXPROCS: '1', ...own } : own;
}

/** A runtime call that failed: `message` is already the text for the client, without what was attempted. */
export class RuntimeError extends Error {
  readonly exitStatus: number;
  /** A signal ended it. */
  readonly killed: boolean;

  constructor(message: string, exitStatus: number, killed = false) {
    super(message);
    this.name = 'RuntimeError';
    this.exitStatus = exitStatus;
    this.killed = killed;
  }
}

/**
 * Calls the runtime and waits for it. @returns what it printed, with `capture`
 * @throws RuntimeError with the last error of its log
 */
export function runRuntime(command: RuntimeCommand, args: readonly string[], options: RunOptions): Promise<string> {
  const verb = args[0] ?? '';
  return traced(`runtime.${verb}`, { attributes: { 'process.executable.name': command.binary } }, () =>
    runToEnd(command, args, options),
  );
}

async function runToEnd(command: RuntimeCommand, args: readonly string[], options: RunOptions): Promise<string> {
  // Somebody may have taken the bundle away: that is no reason for its container not to be killed.
  const logFile = existsSync(path.dirname(options.logFile)) ? options.logFile : '/dev/null';
  const log = ['--log', logFile, '--log-format', 'json'];
  const global = ['--root', command.root, ...log, ...(command.systemdCgroup ? ['--systemd-cgroup'] : [])];
  const output = options.capture ? temporaryFile(path.dirname(options.logFile)) : undefined;
  try {
    const file = lookPath(command.binary);
    if (!file) {
      const reason = command.binary.includes('/')
        ? `fork/exec ${command.binary}: no such file or directory`
        : `exec: "${command.binary}": executable file not found in $PATH`;
      throw new RuntimeError(withoutLog(options.logFile, reason), -1);
    }
    makeRoot(command.root);
    const start = (): Child =>
      spawn({
        file,
        argv0: command.binary,
        args: [...global, ...args],
        env: environmentOf(command, args[0]),
        stdio: output === undefined ? (options.stdio ?? [null, null, null]) : [null, output, output],
        ...(nofile ? { nofile } : {}),
      });
    const child = options.core === undefined || !process.env['SCHED_CORE'] ? start() : startInCore(options.core, start);
    const exit = await waitExit(child);
    if (exit.exitStatus === 0) return output === undefined ? '' : readAll(output);
    const said = output === undefined ? '' : readAll(output).trim();
    const why = exit.signal ? `signal: ${exit.signal}` : `exit status ${exit.exitStatus}`;
    throw new RuntimeError(
      lastRuntimeError(
        logFile,
        `${path.basename(command.binary)} did not terminate successfully: ${why}${said && `: ${said}`}`,
      ),
      exit.exitStatus,
      Boolean(exit.signal),
    );
  } finally {
    if (output !== undefined) closeSync(output);
  }
}

/** With SCHED_CORE, containers never run beside each other on the threads of one core. */
function startInCore(core: 'new' | number, start: () => Child): Child {
  try {
    return inSchedCore(core, start);
  } catch (error) {
    if (error instanceof SysError && error.syscall === 'prctl')
      throw unknown(`enable sched core support: ${error.message}`, error);
    throw error;
  }
}

/** An error of a call as the client reads it: `OCI runtime create failed: …`. */
export function runtimeStatus(reason: unknown, attempted: string): StatusError {
  if (reason instanceof RuntimeError) return unknown(`${attempted}: ${reason.message}`, reason);
  return StatusError.wrap(reason, attempted);
}

const usedRoots = new Set<string>();

function makeRoot(root: string): void {
  if (!usedRoots.has(root) || !existsSync(root)) mkdirSync(root, { recursive: true, mode: 0o711 });
  usedRoots.add(root);
}

/** Removes the state directories that this process used, where no container is left in them. */
export function removeEmptyRoots(): void {
  for (const root of usedRoots)
    for (const directory of [root, path.dirname(root)]) {
      try {
        rmdirSync(directory);
      } catch {
        // Not empty: somebody else's containers, or a directory that was there before.
      }
    }
}

function withoutLog(logFile: string, reason: string): string {
  return `unable to retrieve OCI runtime error (open ${logFile}: no such file or directory): ${reason}`;
}

/** The last error in a runtime's JSON log, or why there is none. */
export function lastRuntimeError(logFile: string, otherwise: string): string {
  let text: string;
  try {
    text = readFileSync(logFile, 'utf8');
  } catch {
    return withoutLog(logFile, otherwise);
  }
  let last = '';
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    try {
      const entry = JSON.parse(line) as { level?: string; msg?: string };
      if (entry.level === 'error' && entry.msg) last = entry.msg.trim();
    } catch {
      // Not JSON: a runtime that writes plain text says more with its last line than with nothing.
      last = line.trim();
    }
  }
  return last || otherwise;
}

let temporaries = 0;

/** A file without a name, in a directory of ours. */
function temporaryFile(directory: string): number {
  const name = path.join(directory, `.out-${process.pid}-${temporaries++}`);
  const fd = openSync(name, 'wx+', 0o600);
  unlinkSync(name);
  return fd;
}

function readAll(fd: number): string {
  const buffer = Buffer.alloc(fstatSync(fd).size);
  const length = readSync(fd, buffer, 0, buffer.length, 0);
  return buffer.toString('utf8', 0, length);
}
