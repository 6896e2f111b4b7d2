// Tasks: a bundle of ours for each, which says how containerd's shim is reached. Neither shim nor container notices.
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { shimBinaryName } from '@gantry/daemon/plugins/runtime-v2/runtime-path.ts';
import { bundlesIn, type FoundTask, isPlain, type Survey } from '../survey.ts';

export interface PlannedTask extends FoundTask {
  bootstrap: string;
  shimBinary: string;
}

export interface TaskPlan {
  taken: PlannedTask[];
  /** Sentences. */
  problems: string[];
}

const takenFile = 'taken.json';

/** @param bundles where this daemon keeps its own: a task that runs there under the same name is not replaced */
export function planTasks({ tasks, metadata }: Survey, bundles: string): TaskPlan {
  const plan: TaskPlan = { taken: [], problems: [] };
  const runtimes = new Map<string, string>();
  for (const { name, containers } of metadata.namespaces)
    for (const { id, runtime } of containers) runtimes.set(`${name}/${id}`, runtime.name);
  for (const task of tasks) {
    const { namespace, id, bootstrap } = task;
    const skip = (why: string) => plan.problems.push(`namespace ${namespace}: task ${id}: ${why}`);
    const shimBinary = task.shimBinary ?? findShim(runtimes.get(`${namespace}/${id}`) ?? '');
    const own = path.join(bundles, namespace, id);
    if (!isPlain(namespace) || !isPlain(id)) skip('not a name that a task can have');
    else if (bootstrap === undefined) skip('its shim was never started, so there is nothing to take over');
    else if (shimBinary === undefined) skip('the program of its shim cannot be found');
    else if (existsSync(own) && !existsSync(path.join(own, takenFile)))
      skip('a task of that name runs under this daemon already');
    else plan.taken.push({ ...task, bootstrap, shimBinary });
  }
  return plan;
}

/** Bundles before containerd 1.5 do not name the program: it is looked for as containerd does. */
function findShim(runtime: string): string | undefined {
  if (path.isAbsolute(runtime)) return runtime;
  const name = shimBinaryName(runtime);
  if (name === undefined) return undefined;
  const places = (process.env['PATH'] ?? '').split(':').filter((folder) => folder !== '');
  return places.map((folder) => path.join(folder, name)).find((file) => existsSync(file));
}

/** Writes the bundles. One is whole or not there. */
export function takeTasks(tasks: readonly PlannedTask[], bundles: string, ttrpcAddress: string): void {
  for (const { namespace, id, bundle, bootstrap, shimBinary } of tasks) {
    const folder = path.join(bundles, namespace);
    // By such a name the daemon's start would sweep what is left of it.
    const making = path.join(folder, `.${id}`);
    mkdirSync(folder, { recursive: true, mode: 0o711 });
    rmSync(making, { recursive: true, force: true });
    mkdirSync(making, { mode: 0o700 });
    const write = (name: string, text: string) => writeFileSync(path.join(making, name), text, { mode: 0o600 });
    write(takenFile, JSON.stringify({ bundle, ttrpcAddress }));
    write('bootstrap.json', bootstrap);
    write('shim-binary-path', shimBinary);
    const own = path.join(folder, id);
    rmSync(own, { recursive: true, force: true });
    renameSync(making, own);
  }
}

export interface OwnTask {
  namespace: string;
  id: string;
  /** It came from containerd. */
  taken: boolean;
  bundle: string;
}

/** The tasks that have a bundle of this daemon. */
export function ownTasks(bundles: string): OwnTask[] {
  return bundlesIn(bundles).map((one) => ({ ...one, taken: existsSync(path.join(one.bundle, takenFile)) }));
}

/** Takes away the bundles of tasks that are containerd's again. */
export function dropTakenTasks(bundles: string, except: ReadonlySet<string> = new Set()): void {
  for (const { namespace, id, bundle, taken } of ownTasks(bundles))
    if (taken && !except.has(`${namespace}/${id}`)) rmSync(bundle, { recursive: true, force: true });
}
