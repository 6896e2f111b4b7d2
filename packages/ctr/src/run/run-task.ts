// Starts a container's task and, unless it is detached, stays with it to its end.
import { writeFileSync } from 'node:fs';
import { type Any, type Client, runcOptions, type StdioOptions, type Task } from '@gantry/client';
import type { Invocation } from '../command.ts';
import { attachStreams, followSize, forwardSignals, rawTerminal, showOutput } from './attach.ts';
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
): Promise<number> {
  const detach = invocation.bool('detach');
  const stdio = stdioOf(invocation);
  const attached = stdio.stdout === 'pipe';
  const restore = terminal && attached && !detach ? rawTerminal() : undefined;
  try {
    const options = taskOptions(invocation, container.runtime);
    const task = await client.tasks.create({
      container: container.id,
      stdio,
      terminal,
      ...(options ? { options } : {}),
    });
    return await startTask(task, { detach, terminal, attached, pidFile: invocation.string('pid-file') });
  } finally {
    restore?.();
  }
}

interface StartSettings {
  detach: boolean;
  terminal: boolean;
  attached: boolean;
  pidFile: string;
}

async function startTask(task: Task, settings: StartSettings): Promise<number> {
  const { detach, terminal, attached, pidFile } = settings;
  try {
    // Asked before the start, so that an end right after it is not missed.
    const ended = detach ? undefined : task.wait();
    ended?.catch(() => undefined);
    if (pidFile) writeFileSync(pidFile, String(task.pid));
    const streams = attached && !detach ? attachStreams(task.io) : undefined;
    if (detach) showOutput(task.io);
    await task.start();
    if (!ended) return 0;
    const stop = terminal ? await followSize(task) : forwardSignals(task);
    const { code } = await ended;
    streams?.release();
    // The shim lets go of the outputs when the task is deleted.
    await task.delete();
    stop();
    await streams?.finish();
    return code;
  } catch (reason) {
    // A task that did not start is of no use to anybody.
    await task.delete().catch(() => undefined);
    task.io.destroy();
    throw reason;
  }
}
