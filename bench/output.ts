import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { run } from '../test/lib/processes.ts';
import { createTask, killTask, processAny, removeTask, startSleeper, type Template } from './containers.ts';
import type { Peer } from './peers.ts';

/** How fast a process's output came, and what its shim did meanwhile. */
export interface OutputRate {
  /** Bytes a second. */
  perSecond: number;
  /** Share of one core. */
  shim: number;
}

/**
 * A process that writes as fast as it can, read by `cat` from the FIFO that is its stdout: a container's own (which Gantry passes to it
 * directly) or that of an exec (which it relays).
 */
export async function outputRate(
  peer: Peer,
  template: Template,
  kind: 'container' | 'exec',
  megabytes: number,
): Promise<OutputRate> {
  const id = `output-${kind}`;
  const stdout = path.join(peer.directory, `${id}.fifo`);
  const stderr = `${stdout}-2`;
  await run('mkfifo', [stdout, stderr]);
  const args = ['dd', 'if=/dev/zero', 'bs=64k', `count=${megabytes * 16}`];
  const reader = spawn('sh', ['-c', 'cat "$1" >/dev/null & cat "$0" >/dev/null; wait', stdout, stderr], {
    stdio: 'ignore',
  });
  const read = once(reader, 'exit');
  try {
    if (kind === 'container') await createTask(peer, template, id, args, { stdout, stderr });
    else {
      await startSleeper(peer, template, id);
      await peer.tasks.exec({ containerId: id, execId: 'e', stdout, stderr, spec: processAny(args) });
    }
    const shims = peer.shims(id);
    const startedAt = performance.now();
    const execId = kind === 'exec' ? 'e' : '';
    const exited = peer.tasks.wait({ containerId: id, execId });
    await peer.tasks.start({ containerId: id, execId });
    // What it takes to start a process is measured elsewhere.
    const before = processorSeconds(shims);
    const { exitStatus } = await exited;
    await read;
    const seconds = (performance.now() - startedAt) / 1000;
    if (exitStatus !== 0) throw new Error(`${peer.name}: the writer ended with ${exitStatus}`);
    const shim = (processorSeconds(shims) - before) / seconds;
    if (kind === 'container') await removeTask(peer, id);
    else {
      await peer.tasks.deleteProcess({ containerId: id, execId });
      await killTask(peer, id);
    }
    return { perSecond: (megabytes * 1024 * 1024) / seconds, shim };
  } finally {
    reader.kill('SIGKILL');
    for (const fifo of [stdout, stderr]) rmSync(fifo, { force: true });
  }
}

/** What processes have used so far, by the nanosecond clock of their threads. */
export function processorSeconds(pids: readonly number[]): number {
  let nanoseconds = 0;
  for (const pid of pids) for (const thread of readdirSync(`/proc/${pid}/task`)) nanoseconds += threadTime(pid, thread);
  return nanoseconds / 1e9;
}

function threadTime(pid: number, thread: string): number {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  } catch {
    return 0; // it ended between the two looks
  }
}
