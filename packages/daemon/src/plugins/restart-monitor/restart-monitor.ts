import { Code, hasCode, now } from '@gantry/api';
import type { Container, ContainerStore } from '../../core/containers/container-store.ts';
import type { Logger } from '../../core/log/logger.ts';
import type { NamespaceStore } from '../../core/namespaces/namespace-store.ts';
import { contextOf, type RequestContext } from '../../core/request-context.ts';
import type { SnapshotterRegistry } from '../../core/snapshots/snapshot-service.ts';
import type { ProcessState } from '../../core/tasks/task-runtime.ts';
import type { TaskService } from '../../core/tasks/task-service.ts';
import { RestartBackoff } from './restart-backoff.ts';
import { RestartLabels, shouldRestart } from './restart-policy.ts';

export interface RestartMonitorOptions {
  namespaces: Pick<NamespaceStore, 'list'>;
  containers: Pick<ContainerStore, 'list' | 'get' | 'update'>;
  snapshotters: Pick<SnapshotterRegistry, 'get'>;
  tasks: Pick<TaskService, 'create' | 'task' | 'state' | 'delete'>;
  /** Milliseconds between two looks. */
  intervalMs: number;
  /** The longest wait between restarts of one container, milliseconds; 0: each is tried at every look. */
  backoffMaxMs: number;
  log: Logger;
}

/** As `containerd.v1.types.Status` numbers them. */
const Status = { unknown: 0, created: 1, running: 2, stopped: 3, paused: 4, pausing: 5 } as const;
const statusNames = ['unknown', 'created', 'running', 'stopped', 'paused', 'pausing'];
const SIGKILL = 9;
/** A container made this short ago whose task does not run yet: its client is about to start it. */
const startingSeconds = 5n;

/** Keeps tasks as the `containerd.io/restart.*` labels of their containers want them: running, or stopped. */
export class RestartMonitor {
  readonly #options: RestartMonitorOptions;
  readonly #backoff: RestartBackoff;
  /** Tasks that had been created and not started at the last look: their client may be about to. */
  #created = new Set<string>();
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RestartMonitorOptions) {
    this.#options = options;
    this.#backoff = new RestartBackoff(options.intervalMs, options.backoffMaxMs);
  }

  /** Looks at once, and again an interval after each look has ended. */
  start(): void {
    this.#running = this.reconcile().finally(() => {
      if (this.#stop.signal.aborted) return;
      this.#timer = setTimeout(() => this.start(), this.#options.intervalMs);
      this.#timer.unref();
    });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#running;
  }

  /** One look at every container. Never rejects: what goes wrong is logged, and tried again at the next look. */
  async reconcile(): Promise<void> {
    const { namespaces, log } = this.#options;
    const seen = new Set<string>();
    const created = new Set<string>();
    try {
      const names = await namespaces.list();
      await Promise.all(names.map((name) => this.#reconcileNamespace(contextOf(name), seen, created)));
    } catch (error) {
      log.error('reconcile', { error });
    }
    this.#created = created;
    this.#backoff.keep(seen);
  }

  async #reconcileNamespace(ctx: RequestContext, seen: Set<string>, created: Set<string>): Promise<void> {
    const { containers, log } = this.#options;
    try {
      const monitored = await containers.list(ctx, [`labels."${RestartLabels.status}"`]);
      await Promise.all(
        monitored.map(async (container) => {
          seen.add(key(ctx, container.id));
          try {
            await this.#reconcileContainer(ctx, container, created);
          } catch (error) {
            if (!this.#stop.signal.aborted)
              log.error('apply change', { error, id: container.id, namespace: ctx.namespace });
          }
        }),
      );
    } catch (error) {
      log.error('monitor for changes', { error, namespace: ctx.namespace });
    }
  }

  async #reconcileContainer(ctx: RequestContext, container: Container, created: Set<string>): Promise<void> {
    const { log } = this.#options;
    const { id, labels } = container;
    const wanted = labels[RestartLabels.status];
    const state = await this.#state(ctx, id);
    if (this.#stop.signal.aborted || (state && statusNames[state.status] === wanted)) return;
    if (wanted === 'stopped') {
      if (state) await this.#end(ctx, id);
      return;
    }
    if (wanted !== 'running') return;
    if (state?.status === Status.paused || state?.status === Status.pausing) return;
    const name = key(ctx, id);
    if ((!state || state.status === Status.created) && now().seconds - container.createdAt.seconds < startingSeconds) {
      return;
    }
    if (state?.status === Status.created) {
      created.add(name);
      if (!this.#created.has(name)) return;
    }
    if (!shouldRestart(labels, state?.exitStatus)) return;
    const clock = performance.now();
    if (!this.#backoff.ready(name, clock)) return;
    if (labels[RestartLabels.logPath]) {
      log.warn(
        'Label "containerd.io/restart.logpath" is no longer supported since containerd v2.0. Use "containerd.io/restart.loguri" instead.',
        { id, namespace: ctx.namespace },
      );
    }
    this.#backoff.started(name, clock);
    await this.#restart(ctx, container);
  }

  /** undefined: it has no task. */
  async #state(ctx: RequestContext, id: string): Promise<ProcessState | undefined> {
    try {
      return await this.#options.tasks.state(ctx, id, '');
    } catch (error) {
      if (hasCode(error, Code.NotFound)) return undefined;
      throw error;
    }
  }

  async #restart(ctx: RequestContext, container: Container): Promise<void> {
    const { containers, snapshotters, tasks, log } = this.#options;
    const { id, labels, snapshotter, snapshotKey } = container;
    const terminal = wantsTerminal(container);
    const count = (Number.parseInt(labels[RestartLabels.count] ?? '', 10) || 0) + 1;
    await containers.update(ctx, { ...container, labels: { [RestartLabels.count]: String(count) } }, [
      `labels.${RestartLabels.count}`,
    ]);
    await this.#end(ctx, id);
    const rootfs = snapshotKey === '' ? [] : await snapshotters.get(ctx, snapshotter).mounts(ctx, snapshotKey);
    const logUri = labels[RestartLabels.logUri] ?? '';
    await tasks.create(ctx, {
      containerId: id,
      rootfs,
      io: { stdin: '', stdout: logUri, stderr: terminal ? '' : logUri, terminal },
      options: undefined,
      runtimePath: '',
      address: '',
      apiVersion: 0,
    });
    try {
      await (await tasks.task(ctx, id)).start('');
      await containers.get(ctx, id);
    } catch (error) {
      // What cannot be started would be in the way of the next try and of the container's removal; one whose container was removed
      // meanwhile would be nobody's.
      await this.#end(ctx, id).catch((failure) => log.error('task cannot be removed', { error: failure, id }));
      throw error;
    }
    log.info('container restarted', { id, namespace: ctx.namespace, count });
  }

  /** Kills and deletes the task, if there is one. */
  async #end(ctx: RequestContext, id: string): Promise<void> {
    const { tasks } = this.#options;
    try {
      const task = await tasks.task(ctx, id);
      const state = await task.state('');
      if (state.status !== Status.stopped) {
        // A process that was never started has no exit to wait for: deleting ends it.
        const exited = state.status === Status.created ? undefined : task.wait('', this.#stop.signal);
        exited?.catch(() => undefined);
        await task.kill('', SIGKILL, true).catch((error) => {
          if (!hasCode(error, Code.NotFound)) throw error;
        });
        await exited;
      }
      await tasks.delete(ctx, id);
    } catch (error) {
      if (!hasCode(error, Code.NotFound)) throw error;
    }
  }
}

function key(ctx: RequestContext, id: string): string {
  return `${ctx.namespace}/${id}`;
}

/** `process.terminal` of the container's OCI spec. */
function wantsTerminal({ spec }: Container): boolean {
  if (!spec) return false;
  const { process } = JSON.parse(Buffer.from(spec.value).toString('utf8')) as { process?: { terminal?: boolean } };
  return process?.terminal === true;
}
