import { existsSync } from 'node:fs';
import path from 'node:path';
import { type DescriptorKind, now } from '@gantry/api';
import { close, hasErrno, pidfdGetInfo, pidfdOpen } from '@gantry/sys';
import { Container } from './container.ts';
import type { KeptDescriptors } from './descriptor-keeper.ts';
import { endInFlight } from './in-flight.ts';
import { log } from './log.ts';
import { runRuntime, runtimeOf } from './oci-runtime.ts';
import { publishExit } from './publish-exit.ts';
import { unknownExit } from './reaper.ts';
import { type ContainerRecord, processStartTime, readRecord } from './record.ts';
import { unmountRootfs } from './rootfs.ts';
import { isMissing } from './runtime-answers.ts';
import type { ShimContext } from './shim-context.ts';
import { adoptProcessIo } from './stdio/adopt-io.ts';
import { openProcessIo } from './stdio/open.ts';
import type { StdioRequest } from './stdio/process-io.ts';
import { isStreamed, StreamedIo } from './stdio/streamed-io.ts';
import { TaskProcess } from './task-process.ts';
import type { Containers } from './task-service.ts';

/**
 * Takes over what an earlier shim of this group left: containers that run are followed again by pidfd, those that ended meanwhile
 * are reported as ended, and what its OCI runtime had not finished making is removed. Runs before anything is served.
 */
export async function adoptContainers(context: ShimContext, containers: Containers): Promise<void> {
  await Promise.all(
    context.index.list().map(async ({ namespace, id, bundle }) => {
      try {
        const record = readRecord(bundle);
        if (record && record.inFlight !== '') await endInFlight(bundle, record.inFlight);
        if (!record) await endUnrecorded(context, namespace, id, bundle);
        else if (!record.init || (record.init.pid === 0 && record.inFlight.includes('create')))
          await removeHalfMade(context, record);
        else containers.add(await adoptContainer(context, record));
      } catch (error) {
        log.error('taking over a container failed', { namespace, id, error });
      }
    }),
  );
}

/** Its bundle is gone, by whatever hand, and the record with it: where the runtime still knows the container, it is ended. */
async function endUnrecorded(context: ShimContext, namespace: string, id: string, bundle: string): Promise<void> {
  const runtime = runtimeOf(namespace);
  if (existsSync(path.join(runtime.root, id)))
    await runRuntime(runtime, ['delete', '--force', id], { logFile: path.join(bundle, 'log.json') });
  context.index.remove(namespace, id);
}

/** Its create never got as far as an answer: nobody knows it, and what there is of it goes. */
export async function removeHalfMade(context: ShimContext, record: ContainerRecord): Promise<void> {
  const container = new Container(context, record, new TaskProcess('', noStdio));
  try {
    await container.runtime('delete', ['delete', '--force', record.id]);
  } catch (error) {
    if (!isMissing(error)) log.warn('removing a half-made container failed', { id: record.id, error });
  }
  if (record.rootfsMounted) await unmountRootfs(record.bundle);
  container.dispose();
  context.keeper.drop(record.namespace, record.id);
  log.info('half-made container removed', { namespace: record.namespace, id: record.id });
}

const noStdio = { terminal: false, stdin: '', stdout: '', stderr: '' };

/** A container as another shim left it, followed again. */
export async function adoptContainer(context: ShimContext, record: ContainerRecord): Promise<Container> {
  const init = TaskProcess.fromRecord(record.init!);
  const container = new Container(context, record, init);
  container.paused = record.paused;
  const [kept] = await Promise.all([
    context.keeper.take(record.namespace, record.id),
    record.inFlight !== '' ? settle(container) : undefined,
  ]);
  for (const exec of record.execs) container.execs.set(exec.execId, TaskProcess.fromRecord(exec));
  for (const process of [init, ...container.execs.values()]) {
    if (process.pid > 0) {
      follow(context, container, process, kept.get(process.execId));
      kept.delete(process.execId);
    } else if (process !== init) continue;
    else if (record.inFlight !== '') await giveUpRestore(container);
    else await reopenUnstarted(context, container);
  }
  for (const { fds } of kept.values()) for (const fd of fds.values()) close(fd);
  container.keepAgain();
  container.watchOom();
  container.save();
  log.info('container adopted', { namespace: record.namespace, id: record.id, pid: init.pid });
  return container;
}

/** A restore that was cut off: what CRIU has made of it by then goes. */
async function giveUpRestore(container: Container): Promise<void> {
  try {
    await container.runtime('delete', ['delete', '--force', container.id]);
  } catch (error) {
    if (!isMissing(error)) log.warn('removing a half-restored container failed', { id: container.id, error });
  }
  container.ended(container.init, { exitStatus: unknownExit, at: now() });
}

/** A container to be restored that nobody has started yet has its streams only here. */
async function reopenUnstarted(context: ShimContext, container: Container): Promise<void> {
  const { init, identity } = container;
  if (init.exit) return;
  init.io = await openProcessIo(init.stdio, {
    namespace: identity.namespace,
    id: identity.id,
    uid: identity.ioUid,
    gid: identity.ioGid,
    direct: false,
    freezable: true,
    socketDir: context.socketDir,
    changed: () => container.keep(init),
  });
}

/** What a runtime call that was cut off has come to: the runtime itself knows. */
async function settle(container: Container): Promise<void> {
  try {
    const printed = await container.runtime('state', ['state', container.id], undefined, true);
    const { status } = JSON.parse(printed) as { status: string };
    container.paused = status === 'paused';
    if (status !== 'created') container.init.started = true;
  } catch (error) {
    log.warn('the state of a container is not known', { id: container.id, error });
  }
}

/** Watches a process again, by the descriptor that was kept of it or, if it is still the same one, by its number. */
function follow(context: ShimContext, container: Container, process: TaskProcess, kept?: KeptDescriptors): void {
  const fds = kept?.fds ?? new Map<DescriptorKind, number>();
  const pidfd = fds.get('pidfd');
  const { pid, stdio, direct, stdinClosed, pipes } = process;
  const watched = process.exit ? undefined : (pidfd ?? openAgain(process));
  if (pidfd !== undefined && process.exit) close(pidfd);
  const running = watched !== undefined && !pidfdGetInfo(watched).exited;
  const { socketDir } = context;
  const changed = () => container.keep(process);
  const connect = (streams: StdioRequest) =>
    adoptProcessIo({ pid, running, stdio: streams, direct, stdinClosed, pipes, kept: fds }, { socketDir, changed });
  const { namespace } = container;
  process.io = isStreamed(stdio) ? StreamedIo.adopt(stdio, { namespace, socketDir, running }, connect) : connect(stdio);
  if (watched !== undefined) container.follow(process, watched, kept?.exitedAt);
  else if (!process.exit) container.ended(process, { exitStatus: unknownExit, at: now() });
  // Whether the dead shim had got as far as telling the daemon is not known: better twice than never.
  else publishExit(context, container, process, process.exit);
}

function openAgain(process: TaskProcess): number | undefined {
  try {
    const pidfd = pidfdOpen(process.pid);
    if (processStartTime(process.pid) === process.startTime) return pidfd;
    close(pidfd);
  } catch (error) {
    if (!hasErrno(error, 'ESRCH')) throw error;
  }
  return undefined;
}
