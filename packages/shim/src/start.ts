import { spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isFree, tryLock } from './abstract-lock.ts';
import { readStartParameters, type StartParameters, writeBootstrapResult } from './bootstrap.ts';
import { reserve } from './control-client.ts';
import { endUnreachable } from './end-unreachable.ts';
import type { ShimFlags } from './flags.ts';
import {
  annotatedGroup,
  defaultSocketDir,
  type GroupPaths,
  groupingFrom,
  groupPaths,
  takenMessage,
} from './grouping.ts';

/** How long another `start` may take to bring the group's server up before this one gives up. */
const startTimeoutMs = 20_000;

/**
 * The `start` action: prints where the group's shim serves, after starting it if no live one answers there. It imports little,
 * because a daemon without the `reuse` annotation runs it for every container.
 */
export async function start(flags: ShimFlags): Promise<Buffer> {
  if (flags.id === '') throw new Error('shim id is empty: -id is required');
  const input = readStdin();
  const announced = process.env['GANTRY_SHIM_INPUT_BYTES'];
  // Half of it would start another group's server, or one that nobody asks for.
  if (announced && Number(announced) !== input.length)
    throw new Error('the daemon ended before it had said what to start');
  const parameters = readStartParameters(input, flags, process.env);
  if (parameters.namespace === '') throw new Error('shim namespace cannot be empty');
  const bundle = flags.bundle || process.cwd();
  const grouping = groupingFrom(process.env['GANTRY_SHIM_GROUPING']);
  const group =
    grouping === 'shared' ? '' : grouping === 'sandbox' ? annotatedGroup(bundle, flags.id) : `container ${flags.id}`;
  const socketDir = parameters.socketDir || process.env['GANTRY_SHIM_SOCKET_DIR'] || defaultSocketDir;
  const paths = groupPaths(socketDir, { ...parameters, group });

  if ((await reserve(paths.control, parameters.namespace, flags.id)) !== 'reserved')
    await startServer(flags, parameters, paths);

  const address = `unix://${paths.socket}`;
  // Daemons before 2.3 look for this file when they start again, and 1.6 leaves it to the shim to write it.
  if (parameters.answer !== 'protobuf') writeFileSync(path.join(bundle, 'address'), address, { mode: 0o600 });
  return writeBootstrapResult({ version: parameters.maxVersion, address, protocol: 'ttrpc' }, parameters.answer);
}

/** All of stdin; nothing if it is a terminal or closed. */
export function readStdin(): Buffer {
  try {
    return fstatSync(0).isCharacterDevice() ? Buffer.alloc(0) : readFileSync(0);
  } catch {
    return Buffer.alloc(0);
  }
}

async function startServer(flags: ShimFlags, parameters: StartParameters, paths: GroupPaths): Promise<void> {
  mkdirSync(path.dirname(paths.socket), { recursive: true, mode: 0o711 });
  const deadline = performance.now() + startTimeoutMs;
  for (;;) {
    const lock = await tryLock(paths.lock);
    try {
      // Asked again under the lock: whoever held it before has most likely started the server.
      const found = await reserve(paths.control, parameters.namespace, flags.id);
      if (found === 'reserved') return;
      // A starter that was killed may have left a server that is still coming up: it is waited for, not doubled.
      if (lock && found === 'absent' && !(await isFree(paths.serving))) await endUnreachable(paths);
      else if (lock && found === 'absent') {
        for (const stale of [paths.socket, paths.control, paths.watch]) rmSync(stale, { force: true });
        if (await launch(flags, parameters, paths)) return;
      }
    } finally {
      lock?.close();
    }
    if (performance.now() > deadline)
      throw new Error(`no shim came up at ${paths.socket} in ${startTimeoutMs / 1000} s`);
    await sleep(5);
  }
}

/** V8's share of memory is kept small: the server's own state is a few hundred bytes for each container. */
const serverFlags = ['--disable-sigusr1', '--v8-pool-size=1', '--max-old-space-size=128', '--max-semi-space-size=1'];

/**
 * Starts the server detached, in a session of its own, and waits until it says that it serves.
 * @returns false if another server of the group was there first
 */
async function launch(flags: ShimFlags, parameters: StartParameters, paths: GroupPaths): Promise<boolean> {
  const log = openSync(paths.log, 'a', 0o600);
  const args = ['-namespace', parameters.namespace, '-id', flags.id, '-address', parameters.grpcAddress];
  if (flags.debug) args.push('-debug');
  args.push('-socket', paths.socket, 'serve');
  const child = spawn(process.execPath, [...serverFlags, process.argv[1]!, ...args], {
    detached: true,
    cwd: '/',
    env: {
      ...process.env,
      GANTRY_SHIM_INPUT_BYTES: undefined,
      GANTRY_SHIM_OPTIONS: parameters.optionsKey,
      GANTRY_SHIM_BUNDLE: path.resolve(flags.bundle || process.cwd()),
      TTRPC_ADDRESS: parameters.ttrpcAddress,
      GRPC_ADDRESS: parameters.grpcAddress,
    },
    stdio: ['ignore', log, log, 'pipe'],
  });
  closeSync(log);
  const ready = child.stdio[3] as NodeJS.ReadableStream;
  let said = '';
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    ready.on('data', (data: Buffer) => {
      said += data.toString('utf8');
      if (said.includes('\n')) resolve();
    });
    ready.on('close', () => resolve());
  });
  child.stdio[3]?.destroy();
  if (said.startsWith('ready')) {
    if (child.pid) adjustOomScore(child.pid);
    child.unref();
    return true;
  }
  if (said.startsWith(takenMessage)) return false;
  try {
    unlinkSync(paths.socket);
  } catch {
    // It was never bound.
  }
  throw new Error(`gantry-shim did not start: ${said.trim() || `see ${paths.log}`}`);
}

/** Like containerd's shims: killed a little more readily than the daemon, far less than a container. */
function adjustOomScore(pid: number): void {
  try {
    const own = Number.parseInt(readFileSync(`/proc/${process.ppid}/oom_score_adj`, 'utf8'), 10);
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(Math.min(1000, own + 1)));
  } catch {
    // Without the right to lower it the score stays as inherited.
  }
}
