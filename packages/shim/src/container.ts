import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { alreadyExists, failedPrecondition, notFound, type Time, toTimestamp } from '@gantry/api';
import {
  TaskCheckpointedSchema,
  TaskDeleteSchema,
  TaskExecAddedSchema,
  TaskOOMSchema,
  TaskPausedSchema,
  TaskResumedSchema,
  TaskStartSchema,
} from '@gantry/api/gen/events/task_pb.js';
import type { CheckpointOptions } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { hasErrno } from '@gantry/sys';
import { type RestoreSource, restoreArguments, writeCheckpoint } from './checkpoint.ts';
import { ContainerCgroup } from './container-cgroup.ts';
import type { ContainerIdentity } from './container-identity.ts';
import { keepDescriptors } from './keep-descriptors.ts';
import { log } from './log.ts';
import { isNative, runRuntime, runtimeStatus, type Stdio } from './oci-runtime.ts';
import { publishExit } from './publish-exit.ts';
import type { ProcessExit } from './reaper.ts';
import { type ContainerRecord, recordName, writeRecord } from './record.ts';
import { releaseInit } from './release-init.ts';
import { removeState } from './remove-state.ts';
import { unmountRootfs } from './rootfs.ts';
import { isMissing, killStatus, readPid } from './runtime-answers.ts';
import type { ShimContext } from './shim-context.ts';
import { signalProcess } from './signal-process.ts';
import { startExec } from './start-exec.ts';
import type { StdioRequest } from './stdio/process-io.ts';
import { TaskProcess } from './task-process.ts';
import { withTimeout } from './with-timeout.ts';

/** How long Delete waits for the end of a process that its runtime has just killed. */
const endTimeoutMs = 10_000;
const SIGKILL = 9;

/** A container and its processes: what the task service's verbs do. One container's failures stay its own. */
export class Container {
  readonly identity: ContainerIdentity;
  readonly init: TaskProcess;
  readonly execs = new Map<string, TaskProcess>();
  readonly cgroup: ContainerCgroup;
  readonly #context: ShimContext;
  /** Names of the runtime commands at work, as the record shows them. */
  readonly #inFlight = new Set<string>();
  paused = false;
  #deleted = false;
  /** Its init process has ended and nothing was left in its cgroup. */
  #leftNothing = false;

  constructor(context: ShimContext, identity: ContainerIdentity, init: TaskProcess) {
    this.#context = context;
    this.identity = identity;
    this.init = init;
    this.cgroup = new ContainerCgroup(identity.id);
  }

  get id(): string {
    return this.identity.id;
  }

  get namespace(): string {
    return this.identity.namespace;
  }

  /** The log that the OCI runtime writes for this container. */
  get logFile(): string {
    return path.join(this.identity.bundle, 'log.json');
  }

  /** The process of a request. @throws StatusError NotFound */
  process(execId: string): TaskProcess {
    if (execId === '') return this.init;
    const process = this.execs.get(execId);
    if (!process) throw notFound(`process does not exist ${execId}: not found`);
    return process;
  }

  /** Starts the init process or an exec. @returns its pid */
  start(execId: string): Promise<number> {
    const process = this.process(execId);
    return process.mutex.run(async () => {
      if (process.started) throw failedPrecondition(`cannot start a ${process.exit ? 'stopped' : 'running'} process`);
      const announced = Promise.withResolvers<void>();
      process.announced = announced.promise;
      try {
        await (execId === '' ? this.#startInit() : startExec(this.#context, this, process));
      } finally {
        announced.resolve();
      }
      return process.pid;
    });
  }

  async #startInit(): Promise<void> {
    const { init } = this;
    if (init.exit) throw failedPrecondition('cannot start a stopped process');
    await this.cgroup.sought();
    try {
      if (this.identity.restore) await this.#restoreInit(this.identity.restore);
      else
        await this.whileInFlight('start', async () => {
          if (
            !this.identity.hooks.includes('poststart') &&
            (await releaseInit(this.identity.runtime, this.id, init.wait()))
          )
            return;
          await this.#run(['start', this.id]);
        });
    } catch (error) {
      throw runtimeStatus(error, `OCI runtime ${this.identity.restore ? 'restore' : 'start'} failed`);
    }
    init.started = true;
    this.save();
    this.#context.publisher.publish(this.namespace, '/tasks/start', TaskStartSchema, {
      containerId: this.id,
      pid: init.pid,
    });
    // It may have been killed already.
    this.watchOom(true);
  }

  async #restoreInit(source: RestoreSource): Promise<void> {
    const { init } = this;
    const pidFile = path.join(this.identity.bundle, 'init.pid');
    const args = restoreArguments(source, this.identity.bundle, pidFile);
    if (init.io?.consoleSocket) args.push('--console-socket', init.io.consoleSocket);
    await this.#context.reaper.whileSpawning(async () => {
      await this.runtime('restore', [...args, this.id], init.io?.stdio);
      init.setPid(readPid(pidFile));
      this.follow(init);
    });
    await init.io?.started();
    this.keep(init);
  }

  /** Has CRIU write the state of its processes to a directory; with `exit` they end by it. */
  async checkpoint(imagePath: string, options: CheckpointOptions): Promise<void> {
    await this.init.mutex.run(async () => {
      if (this.init.exit) throw failedPrecondition('cannot checkpoint a stopped container');
      if (!this.init.started) throw failedPrecondition('cannot checkpoint a task in created state');
      await writeCheckpoint(this.identity.bundle, imagePath, options, (args) =>
        this.runtime('checkpoint', [...args, this.id]),
      );
      this.save();
      this.#context.publisher.publish(this.namespace, '/tasks/checkpointed', TaskCheckpointedSchema, {
        containerId: this.id,
        checkpoint: imagePath,
      });
    });
  }

  /** Has the kernel tell of its out-of-memory kills, from now, or its start, to the end of its init process. */
  watchOom(fromStart = false): void {
    if (!isNative(this.identity.runtime) || !(fromStart || this.init.isRunning)) return;
    void this.cgroup.watchOom(this.init.pid, this.#tellOom, fromStart);
  }

  readonly #tellOom = (): void => {
    this.#context.publisher.publish(this.namespace, '/tasks/oom', TaskOOMSchema, { containerId: this.id });
  };

  /** Takes note of a process's end whenever it comes. */
  follow(process: TaskProcess, pidfd?: number, at?: Time): void {
    this.#context.reaper.watch(process.pid, pidfd, at).then((exit) => this.ended(process, exit));
  }

  /** Has the daemon keep what of a process would end with this shim. To be called whenever that may have changed. */
  keep(process: TaskProcess): void {
    if (this.#deleted || (process !== this.init && this.execs.get(process.execId) !== process)) return;
    keepDescriptors(this.#context, this.identity, process);
  }

  /** The daemon was started again and has nothing: everything is given once more. */
  keepAgain(): void {
    for (const process of [this.init, ...this.execs.values()]) {
      process.keptKinds = '';
      this.keep(process);
    }
  }

  /** Ends a process's input, once what is in it and what other writers add has been read. */
  closeStdin(execId: string): void {
    const process = this.process(execId);
    process.stdinClosed = true;
    this.save();
    process.io?.closeStdin();
    this.keep(process);
  }

  /** A process has ended. Never throws. */
  ended(process: TaskProcess, exit: ProcessExit): void {
    this.#ended(process, exit).catch((error) => {
      log.error('handling an exit failed', { id: this.id, exec: process.execId, error });
      process.setExited(exit);
    });
  }

  async #ended(process: TaskProcess, exit: ProcessExit): Promise<void> {
    process.io?.exited();
    if (process === this.init) {
      // Before its end, which the cgroup may go with.
      if (isNative(this.identity.runtime)) await this.cgroup.lastOom(this.#tellOom);
      if (!this.identity.ownPidNamespace) await this.#killRest();
    }
    process.setExited(exit);
    if (!this.#deleted) {
      this.save();
      this.keep(process);
    }
    await process.announced;
    publishExit(this.#context, this, process, exit);
  }

  /** Without a pid namespace of its own, what the init process left behind is ended here. Mostly that is nothing. */
  async #killRest(): Promise<void> {
    if (isNative(this.identity.runtime) && (await this.cgroup.isEmpty())) {
      this.#leftNothing = true;
      return;
    }
    try {
      await this.runtime('kill', ['kill', '--all', this.id, 'KILL']);
    } catch (error) {
      log.debug('killing what is left of a container failed', { id: this.id, error });
    }
  }

  /** Adds a process, to be started by Start. */
  addExec(execId: string, stdio: StdioRequest, spec: Uint8Array): void {
    if (this.execs.has(execId)) throw alreadyExists(`id ${execId}: already exists`);
    if (this.paused) throw failedPrecondition('cannot exec in a paused state');
    if (this.init.exit) throw failedPrecondition('cannot exec in a stopped state');
    const process = new TaskProcess(execId, stdio);
    process.spec = spec;
    this.execs.set(execId, process);
    this.save();
    this.#context.publisher.publish(this.namespace, '/tasks/exec-added', TaskExecAddedSchema, {
      containerId: this.id,
      execId,
    });
  }

  /** Sends a signal to a process, or with `all` to every process of the container. */
  async kill(execId: string, signal: number, all: boolean): Promise<void> {
    const process = this.process(execId);
    if (execId === '' && (all || this.paused || !isNative(this.identity.runtime))) {
      if (process.exit && !all) throw notFound('process already finished: not found');
      if (all && (await this.#initIsAll(signal))) {
        signalProcess(process, signal);
        return;
      }
      try {
        await this.runtime('kill', ['kill', ...(all ? ['--all'] : []), this.id, String(signal)]);
        return;
      } catch (error) {
        // One whose state the runtime has lost still has its process.
        const lost = isMissing(error) && isNative(this.identity.runtime) && process.pid > 0 && !process.exit;
        if (!lost) throw killStatus(error, this.id);
      }
    }
    signalProcess(process, signal);
  }

  /** Whether a signal to the init process does what one to every process does: then no runtime is called for it. */
  async #initIsAll(signal: number): Promise<boolean> {
    const { init, paused } = this;
    if (!isNative(this.identity.runtime) || paused || !init.isRunning) return false;
    // With the first process of its pid namespace the kernel ends the others.
    if (signal === SIGKILL && this.identity.ownPidNamespace) return true;
    return (await this.cgroup.hasOnly(init.pid)) && init.isRunning;
  }

  async pause(): Promise<void> {
    await this.init.mutex.run(async () => {
      if (!this.init.isRunning || !this.init.started)
        throw failedPrecondition(
          this.init.exit ? 'cannot pause a stopped container' : 'cannot pause task in created state',
        );
      if (this.paused) throw failedPrecondition('cannot pause a paused container');
      try {
        await this.runtime('pause', ['pause', this.id]);
      } catch (error) {
        throw runtimeStatus(error, 'OCI runtime pause failed');
      }
      this.paused = true;
      this.save();
      this.#context.publisher.publish(this.namespace, '/tasks/paused', TaskPausedSchema, { containerId: this.id });
    });
  }

  async resume(): Promise<void> {
    await this.init.mutex.run(async () => {
      if (!this.paused)
        throw failedPrecondition(
          this.init.exit
            ? 'cannot resume a stopped container'
            : this.init.started
              ? 'cannot resume a running process'
              : 'cannot resume task in created state',
        );
      try {
        await this.runtime('resume', ['resume', this.id]);
      } catch (error) {
        throw runtimeStatus(error, 'OCI runtime resume failed');
      }
      this.paused = false;
      this.save();
      this.#context.publisher.publish(this.namespace, '/tasks/resumed', TaskResumedSchema, { containerId: this.id });
    });
  }

  /** Changes resource limits; `resources` is OCI JSON. */
  async update(resources: Uint8Array): Promise<void> {
    const file = path.join(this.identity.bundle, 'update.json');
    await this.init.mutex.run(async () => {
      writeFileSync(file, resources, { mode: 0o600 });
      try {
        await this.runtime('update', ['update', '--resources', file, this.id]);
      } catch (error) {
        throw runtimeStatus(error, 'OCI runtime update failed');
      } finally {
        rmSync(file, { force: true });
      }
    });
  }

  /** The pids of all its processes, as seen from here. */
  async pids(): Promise<number[]> {
    try {
      if (isNative(this.identity.runtime)) return await this.cgroup.pids(this.init.pid);
      const printed = await this.runtime('ps', ['ps', '--format', 'json', this.id], undefined, true);
      return (JSON.parse(printed) as number[] | null) ?? [];
    } catch (error) {
      throw runtimeStatus(error, 'OCI runtime ps failed');
    }
  }

  /** Removes an exec, or the whole container. @returns how the process ended */
  delete(execId: string): Promise<{ pid: number; exit: ProcessExit }> {
    const process = this.process(execId);
    return process.mutex.run(() => (execId === '' ? this.#deleteInit() : this.#deleteExec(process)));
  }

  async #deleteExec(process: TaskProcess): Promise<{ pid: number; exit: ProcessExit }> {
    if (process.isRunning) throw failedPrecondition('cannot delete a running process');
    await process.io?.drain();
    process.io?.close();
    this.execs.delete(process.execId);
    if (process.keptKinds !== '') this.#context.keeper.drop(this.namespace, this.id, process.execId);
    this.save();
    return { pid: process.pid, exit: process.exit ?? neverStarted };
  }

  async #deleteInit(): Promise<{ pid: number; exit: ProcessExit }> {
    const { init } = this;
    if (init.isRunning && init.started) throw failedPrecondition('cannot delete a running process');
    // Once every process has ended only a hook could still look at the rootfs.
    const early =
      init.exit !== undefined &&
      (this.identity.ownPidNamespace || this.#leftNothing) &&
      !this.identity.hooks.includes('poststop');
    const [deleted, unmounted] = await Promise.allSettled([
      this.whileInFlight('delete', async () => {
        if (early && (await this.#removeState())) return;
        await this.#run(['delete', ...(init.exit ? [] : ['--force']), this.id]);
      }),
      early ? this.#unmount() : undefined,
    ]);
    if (deleted.status === 'rejected' && !isMissing(deleted.reason))
      throw runtimeStatus(deleted.reason, 'OCI runtime delete failed');
    if (unmounted.status === 'rejected') throw unmounted.reason;
    const exit =
      init.pid === 0
        ? neverStarted
        : await withTimeout(init.wait(), endTimeoutMs, `process ${init.pid} of ${this.id} does not end`);
    await Promise.all([init, ...this.execs.values()].map((process) => process.io?.drain()));
    await this.#unmount();
    this.dispose();
    await init.announced;
    this.#context.publisher.publish(this.namespace, '/tasks/delete', TaskDeleteSchema, {
      containerId: this.id,
      pid: init.pid,
      exitStatus: exit.exitStatus,
      exitedAt: toTimestamp(exit.at),
    });
    return { pid: init.pid, exit };
  }

  #removeState(): Promise<boolean> {
    const { runtime } = this.identity;
    return removeState({ id: this.id, pid: this.init.pid, runtime, cgroups: this.cgroup.paths });
  }

  async #unmount(): Promise<void> {
    if (!this.identity.rootfsMounted) return;
    await unmountRootfs(this.identity.bundle);
    this.identity.rootfsMounted = false;
  }

  /** Lets go of streams and of what is on disk about it. */
  dispose(): void {
    this.#deleted = true;
    this.cgroup.close();
    const processes = [this.init, ...this.execs.values()];
    for (const process of processes) process.io?.close();
    if (processes.some(({ keptKinds }) => keptKinds !== '')) this.#context.keeper.drop(this.namespace, this.id);
    rmSync(path.join(this.identity.bundle, recordName), { force: true });
    this.#context.index.remove(this.namespace, this.id);
  }

  /** Calls the OCI runtime; while it works, the record says so. */
  runtime(what: string, args: readonly string[], stdio?: Stdio, capture = false): Promise<string> {
    const call = () => this.#run(args, stdio, capture);
    // What only looks or signals leaves nothing half done.
    return capture || what === 'kill' ? call() : this.whileInFlight(what, call);
  }

  #run(args: readonly string[], stdio?: Stdio, capture = false): Promise<string> {
    const core = args[0] === 'exec' ? this.init.pid : args[0] === 'create' || args[0] === 'restore' ? 'new' : undefined;
    return runRuntime(this.identity.runtime, args, {
      logFile: this.logFile,
      capture,
      ...(stdio ? { stdio } : {}),
      ...(core === undefined ? {} : { core }),
    });
  }

  /** Has the record say that something is under way which a death of this process would leave half done. */
  async whileInFlight<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (!this.#inFlight.has(what)) {
      this.#inFlight.add(what);
      this.save();
    }
    try {
      return await work();
    } finally {
      this.#inFlight.delete(what);
    }
  }

  /** Writes its record. Who answers a request does it before. */
  save(): void {
    const record: ContainerRecord = {
      version: 1,
      ...this.identity,
      paused: this.paused,
      inFlight: [...this.#inFlight].join(','),
      control: this.#context.control,
      ...(this.init.pid > 0 || this.identity.restore ? { init: this.init.record() } : {}),
      execs: [...this.execs.values()].map((process) => process.record()),
    };
    try {
      writeRecord(record);
    } catch (error) {
      // The daemon took the bundle away: nothing is left that a record would have to describe.
      if (!hasErrno(error, 'ENOENT')) throw error;
      log.warn('the bundle is gone', { id: this.id, bundle: this.identity.bundle });
    }
  }
}

const neverStarted: ProcessExit = { exitStatus: 0, at: { seconds: 0n, nanos: 0 } };
