import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { create } from '@bufbuild/protobuf';
import { StatusError } from '@gantry/api';
import { TaskCreateSchema } from '@gantry/api/gen/events/task_pb.js';
import type { CreateTaskRequest } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { MountSchema } from '@gantry/api/gen/types/mount_pb.js';
import { expectCgroupMove } from '@gantry/cgroups';
import { canCheckpoint, type RestoreSource } from './checkpoint.ts';
import { Container } from './container.ts';
import { enterShimCgroup } from './container-cgroup.ts';
import { log } from './log.ts';
import { isNative, runtimeCommand, runtimeStatus } from './oci-runtime.ts';
import { removeUnfinished, wasKilled } from './remove-unfinished.ts';
import { mountRootfs, unmountRootfs } from './rootfs.ts';
import { isMissing, readPid } from './runtime-answers.ts';
import { readRuntimeOptions } from './runtime-options.ts';
import type { ShimContext } from './shim-context.ts';
import { readSpecFacts } from './spec.ts';
import { openProcessIo } from './stdio/open.ts';
import { TaskProcess } from './task-process.ts';

/** What a create request says, without its protobuf clothes: the same for Task v2 and v3. */
export type CreateRequest = Pick<
  CreateTaskRequest,
  'id' | 'bundle' | 'rootfs' | 'terminal' | 'stdin' | 'stdout' | 'stderr' | 'checkpoint' | 'options'
>;

/**
 * Makes a container up to the point where its init process waits for Start: rootfs mounted, streams connected, runtime called,
 * pid known and written down. On failure nothing of it is left.
 */
export async function createContainer(
  context: ShimContext,
  namespace: string,
  request: CreateRequest,
): Promise<Container> {
  const options = readRuntimeOptions(request.options);
  const { bundle } = request;
  const facts = readSpecFacts(bundle);
  const runtime = runtimeCommand(options, namespace);
  writeFileSync(path.join(bundle, 'options.json'), JSON.stringify(optionsJson(options)), { mode: 0o600 });
  writeFileSync(path.join(bundle, 'runtime'), options.binaryName, { mode: 0o600 });
  const init = new TaskProcess('', {
    terminal: request.terminal,
    stdin: request.stdin,
    stdout: request.stdout,
    stderr: request.stderr,
  });
  const restore: RestoreSource | undefined =
    request.checkpoint === ''
      ? undefined
      : {
          imagePath: request.checkpoint,
          workPath: options.criuWorkPath || path.join(bundle, 'work'),
          noPivotRoot: options.noPivotRoot,
        };
  const freezable = restore !== undefined || canCheckpoint();
  init.direct = isNative(runtime) && facts.ownPidNamespace && !facts.confined && !request.terminal && !freezable;
  const container = new Container(
    context,
    {
      namespace,
      id: request.id,
      bundle,
      runtime,
      rootfsMounted: request.rootfs.length > 0,
      ownPidNamespace: facts.ownPidNamespace,
      noNewKeyring: options.noNewKeyring,
      hooks: facts.hooks,
      ioUid: options.ioUid,
      ioGid: options.ioGid,
      ...(restore ? { restore } : {}),
    },
    init,
  );
  const begunMs = performance.now();
  const announced = Promise.withResolvers<void>();
  init.announced = announced.promise;
  // Written before anything is done that would have to be undone.
  context.index.add(namespace, request.id, bundle);
  try {
    await container.whileInFlight('create', async () => {
      if (options.shimCgroup !== '') await enterShimCgroup(options.shimCgroup);
      expectCgroupMove();
      await mountRootfs(bundle, request.rootfs);
      init.io = await openProcessIo(init.stdio, {
        namespace,
        id: request.id,
        uid: options.ioUid,
        gid: options.ioGid,
        direct: init.direct,
        freezable,
        socketDir: context.socketDir,
        changed: () => container.keep(init),
      }).catch((error: unknown) => {
        throw StatusError.wrap(error, 'failed to create init process I/O');
      });
      if (restore) return;
      const pidFile = path.join(bundle, 'init.pid');
      const args = ['create', '--bundle', bundle, '--pid-file', pidFile];
      if (init.io.consoleSocket) args.push('--console-socket', init.io.consoleSocket);
      if (options.noPivotRoot) args.push('--no-pivot');
      if (options.noNewKeyring) args.push('--no-new-keyring');
      await context.reaper.whileSpawning(async () => {
        try {
          await container.runtime('create', [...args, request.id], init.io!.stdio);
        } catch (error) {
          throw runtimeStatus(error, 'OCI runtime create failed');
        }
        init.setPid(readPid(pidFile));
        container.follow(init);
        if (isNative(runtime)) container.cgroup.find(init.pid);
      });
      await init.io.started();
      container.keep(init);
    });
    container.save();
  } catch (error) {
    if (wasKilled(error)) await removeUnfinished(container.identity, (performance.now() - begunMs) / 1000);
    await removeByForce(container);
    throw error;
  }
  context.publisher.publish(namespace, '/tasks/create', TaskCreateSchema, {
    containerId: request.id,
    bundle,
    rootfs: request.rootfs.map((mount) => create(MountSchema, mount)),
    io: { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal },
    checkpoint: request.checkpoint,
    pid: init.pid,
  });
  announced.resolve();
  return container;
}

/** Ends a container, in whatever state it is, and lets go of all that there is of it. Never throws. */
export async function removeByForce(container: Container): Promise<void> {
  const { identity } = container;
  try {
    if (container.init.pid > 0) await container.runtime('delete', ['delete', '--force', identity.id]);
  } catch (error) {
    if (!isMissing(error)) log.warn('removing a container by force failed', { id: identity.id, error });
  }
  try {
    if (identity.rootfsMounted) await unmountRootfs(identity.bundle);
  } catch (error) {
    log.warn('unmounting a rootfs failed', { id: identity.id, error });
  }
  container.dispose();
  rmSync(path.join(identity.bundle, 'init.pid'), { force: true });
}

/** options.json as containerd's shim leaves it: only what is set, in protobuf's names. */
function optionsJson(options: ReturnType<typeof readRuntimeOptions>): Record<string, unknown> {
  const names = Object.entries(options).filter(([, value]) => value !== '' && value !== 0 && value !== false);
  return Object.fromEntries(
    names.map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]),
  );
}
