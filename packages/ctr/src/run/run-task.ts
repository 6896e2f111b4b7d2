// Starts a container's task and, unless it is detached, stays with it to its end.
import { writeFileSync } from 'node:fs';
import { type Any, type Client, runcOptions, type StdioOptions, type Task } from '@gantry/client';
import type { Invocation } from '../command.ts';
import { attachStreams, followSize, forwardSignals, rawTerminal, showOutput } from './attach.ts';
import type { CniNetwork } from './cni.ts';
import { parseIdMap } from './spec-from-flags.ts';

/** The streams that flags ask for. */
export function stdioOf(invocation: Invocation): StdioOptions {
  const directory = invocation.string('fifo-dir');
  if (invocation.bool('null-io')) {
    if (invocation.isSet('log-uri') && invocation.string('log-uri')) throw new Error("can't use log-uri with null-io");
    return {};
  }
  const uri = invocation.string('log-uri');
  if (uri) return { stdout: uri, stderr: uri };
  return { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe', ...(directory ? { directory } : {}) };
}

/** Options of the task, as far as flags change them. */
function taskOptions(invocation: Invocation, container: { options: Any | undefined }): Any | undefined {
  const uids = invocation.strings('uidmap').map(parseIdMap);
  const gids = invocation.strings('gidmap').map(parseIdMap);
  const noPivotRoot = invocation.bool('no-pivot');
  if (!noPivotRoot && uids.length === 0) return container.options;
  return runcOptions({
    noPivotRoot,
    binaryName: invocation.string('runc-binary'),
    root: invocation.string('runc-root'),
    systemdCgroup: invocation.bool('runc-systemd-cgroup'),
    ioUid: uids.find(({ containerID }) => containerID === 0)?.hostID ?? 0,
    ioGid: gids.find(({ containerID }) => containerID === 0)?.hostID ?? 0,
  });
}

/**
 * Creates and starts the task of a container. @returns its exit code; 0 when detached
 * @throws StatusError if it cannot be started
 */
export async function runTask(
  client: Client,
  invocation: Invocation,
  container: { id: string; runtime: { options: Any | undefined } },
  terminal: boolean,
  network?: CniNetwork,
): Promise<number> {
  const stdio = stdioOf(invocation);
  const options = taskOptions(invocation, container.runtime);
  const create = () =>
    client.tasks.create({ container: container.id, stdio, terminal, ...(options ? { options } : {}) });
  return runMadeTask(create, {
    detach: invocation.bool('detach'),
    terminal,
    attached: stdio.stdout === 'pipe',
    pidFile: invocation.string('pid-file'),
    ...(network ? { network } : {}),
  });
}

/** The same for a task that `create` makes. */
export async function runMadeTask(create: () => Promise<Task>, settings: StartSettings): Promise<number> {
  const { terminal, attached, detach } = settings;
  const restore = terminal && attached && !detach ? rawTerminal() : undefined;
  try {
    return await startTask(await create(), settings);
  } finally {
    restore?.();
  }
}

export interface StartSettings {
  detach: boolean;
  terminal: boolean;
  /** Its streams are pipes of this program. */
  attached: boolean;
  /** '' for none. */
  pidFile: string;
  /** To be set up before the process starts. */
  network?: CniNetwork;
}

async function startTask(task: Task, settings: StartSettings): Promise<number> {
  const { detach, terminal, attached, pidFile, network } = settings;
  let connected = false;
  try {
    // Asked before the start, so that an end right after it is not missed.
    const ended = detach ? undefined : task.wait();
    ended?.catch(() => undefined);
    if (pidFile) writeFileSync(pidFile, String(task.pid));
    const streams = attached && !detach ? attachStreams(task.io) : undefined;
    if (detach) showOutput(task.io);
    await network?.setUp(task.pid);
    connected = network !== undefined;
    await task.start();
    if (!ended) return 0;
    const stop = terminal ? await followSize(task) : forwardSignals(task);
    const { code } = await ended;
    streams?.release();
    connected = false;
    await network?.takeDown();
    // The shim lets go of the outputs when the task is deleted.
    await task.delete();
    stop();
    await streams?.finish();
    return code;
  } catch (reason) {
    // A task that did not start is of no use to anybody.
    if (connected) await network?.takeDown();
    await task.delete().catch(() => undefined);
    task.io.destroy();
    throw reason;
  }
}
