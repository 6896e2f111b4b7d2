import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { TaskExecStartedSchema } from '@gantry/api/gen/events/task_pb.js';
import { expectCgroupMove } from '@gantry/cgroups';
import { canCheckpoint } from './checkpoint.ts';
import type { Container } from './container.ts';
import { runtimeStatus } from './oci-runtime.ts';
import { readPid } from './runtime-answers.ts';
import type { ShimContext } from './shim-context.ts';
import { signalProcess } from './signal-process.ts';
import { openProcessIo } from './stdio/open.ts';
import type { TaskProcess } from './task-process.ts';

const SIGKILL = 9;

/** Has the runtime start a process that Exec has added: streams connected, pid known and written down. On failure nothing of it is left. */
export async function startExec(context: ShimContext, container: Container, process: TaskProcess): Promise<void> {
  const { execId } = process;
  const { bundle, ioUid, ioGid, noNewKeyring } = container.identity;
  const specFile = path.join(bundle, `exec-${execId}.json`);
  const pidFile = path.join(bundle, `exec-${execId}.pid`);
  expectCgroupMove();
  process.io = await openProcessIo(process.stdio, {
    namespace: container.namespace,
    id: execId,
    uid: ioUid,
    gid: ioGid,
    direct: false,
    freezable: canCheckpoint(),
    socketDir: context.socketDir,
    changed: () => container.keep(process),
  });
  try {
    writeFileSync(specFile, process.spec ?? new Uint8Array(), { mode: 0o600 });
    const args = ['exec', '--process', specFile, '--detach', '--pid-file', pidFile];
    if (process.io.consoleSocket) args.push('--console-socket', process.io.consoleSocket);
    if (noNewKeyring) args.push('--no-new-keyring');
    await context.reaper.whileSpawning(async () => {
      await container.runtime(`exec ${execId}`, [...args, container.id], process.io!.stdio);
      process.setPid(readPid(pidFile));
      container.follow(process);
    });
    await process.io.started();
    // CloseIO may have come when there was nothing to close yet.
    if (process.stdinClosed) process.io.closeStdin();
    process.started = true;
    process.spec = undefined;
    container.keep(process);
    // Before the pid file goes, by which the next shim would end a process that nobody was told of.
    container.save();
  } catch (error) {
    process.io.close();
    process.io = undefined;
    if (process.pid > 0) signalProcess(process, SIGKILL);
    throw runtimeStatus(error, 'OCI runtime exec failed');
  } finally {
    rmSync(specFile, { force: true });
    rmSync(pidFile, { force: true });
  }
  context.publisher.publish(container.namespace, '/tasks/exec-started', TaskExecStartedSchema, {
    containerId: container.id,
    execId,
    pid: process.pid,
  });
}
