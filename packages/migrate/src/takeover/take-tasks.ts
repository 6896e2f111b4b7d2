// Tasks and sandboxes: a bundle of ours for each, which says how containerd's shim is reached. Neither shim nor container notices.
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { shimBinaryName } from '@gantry/daemon/plugins/runtime-v2/runtime-path.ts';
import type { GantryPlace } from '../places.ts';
import { bundlesIn, type FoundSandbox, isPlain, type Survey } from '../survey.ts';

export interface PlannedBundle extends FoundSandbox {
  bootstrap: string;
  shimBinary: string;
  /** The sandbox in whose shim it is, which for a sandbox is itself. */
  sandbox?: string | undefined;
}

export interface TaskPlan {
  taken: PlannedBundle[];
  sandboxes: PlannedBundle[];
  /** Sentences. */
  problems: string[];
}

type Bundles = Pick<GantryPlace, 'bundles' | 'sandboxBundles'>;

const takenFile = 'taken.json';
const nameOf = ({ namespace, id }: { namespace: string; id: string }) => `${namespace}/${id}`;

/** @param to where this daemon keeps its own: what runs there under the same name is not replaced */
export function planTasks({ tasks, sandboxes, metadata }: Survey, to: Bundles): TaskPlan {
  const problems: string[] = [];
  const runtimes = new Map<string, string>();
  const members = new Map<string, string>();
  for (const { name, containers, sandboxes: records } of metadata.namespaces) {
    for (const { id, runtime, sandbox } of containers) {
      runtimes.set(`${name}/${id}`, runtime.name);
      members.set(`${name}/${id}`, sandbox);
    }
    for (const { id, runtime } of records)
      if (!runtimes.has(`${name}/${id}`)) runtimes.set(`${name}/${id}`, runtime.name);
  }
  /** Members of a sandbox have no program of their own. */
  const programs = new Map<string, string>();
  const plan = <Found extends FoundSandbox>(kind: string, found: readonly Found[], bundles: string) =>
    found.flatMap((one) => {
      const { namespace, id, bootstrap } = one;
      const shimBinary = one.shimBinary ?? programs.get(nameOf(one)) ?? findShim(runtimes.get(nameOf(one)) ?? '');
      const own = path.join(bundles, namespace, id);
      let why = '';
      if (!isPlain(namespace) || !isPlain(id)) why = `not a name that a ${kind} can have`;
      else if (bootstrap === undefined) why = 'its shim was never started, so there is nothing to take over';
      else if (shimBinary === undefined) why = 'the program of its shim cannot be found';
      else if (existsSync(own) && !existsSync(path.join(own, takenFile)))
        why = `a ${kind} of that name runs under this daemon already`;
      else return [{ ...one, bootstrap, shimBinary }];
      problems.push(`namespace ${namespace}: ${kind} ${id}: ${why}`);
      return [];
    });
  const taken: PlannedBundle[] = plan('sandbox', sandboxes, to.sandboxBundles).map((one) => ({
    ...one,
    sandbox: one.id,
  }));
  const known = new Map(taken.map((one) => [nameOf(one), one.shimBinary]));
  for (const [name, sandbox] of members) {
    const program = known.get(`${name.slice(0, name.indexOf('/'))}/${sandbox}`);
    if (program) programs.set(name, program);
  }
  return {
    sandboxes: taken,
    taken: plan('task', tasks, to.bundles).map((one) => {
      const sandbox = members.get(nameOf(one)) ?? '';
      return known.has(`${one.namespace}/${sandbox}`) ? { ...one, sandbox } : one;
    }),
    problems,
  };
}

/** Bundles before containerd 1.5 do not name the program: it is looked for as containerd does. */
function findShim(runtime: string): string | undefined {
  if (path.isAbsolute(runtime)) return runtime;
  const name = shimBinaryName(runtime);
  if (name === undefined) return undefined;
  const places = (process.env['PATH'] ?? '').split(':').filter((folder) => folder !== '');
  return places.map((folder) => path.join(folder, name)).find((file) => existsSync(file));
}

/** Writes the bundles, in place of all that came before from containerd. One is whole or not there. */
export function takeTasks({ taken, sandboxes }: TaskPlan, to: Bundles, ttrpcAddress: string): void {
  for (const [planned, bundles] of [
    [sandboxes, to.sandboxBundles],
    [taken, to.bundles],
  ] as const) {
    drop(bundles, new Set(planned.map(nameOf)));
    for (const one of planned) write(one, bundles, ttrpcAddress);
  }
}

function write(planned: PlannedBundle, bundles: string, ttrpcAddress: string): void {
  const { namespace, id, bundle, bootstrap, shimBinary, sandbox } = planned;
  const folder = path.join(bundles, namespace);
  // By such a name the daemon's start would sweep what is left of it.
  const making = path.join(folder, `.${id}`);
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  rmSync(making, { recursive: true, force: true });
  mkdirSync(making, { mode: 0o700 });
  const put = (name: string, text: string) => writeFileSync(path.join(making, name), text, { mode: 0o600 });
  put(takenFile, JSON.stringify({ bundle, ttrpcAddress }));
  put('bootstrap.json', bootstrap);
  put('shim-binary-path', shimBinary);
  if (sandbox) put('shim-group.json', JSON.stringify({ shared: false, sandbox }));
  const own = path.join(folder, id);
  rmSync(own, { recursive: true, force: true });
  renameSync(making, own);
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

/** Takes away the bundles of tasks and sandboxes that are containerd's again. */
export function dropTakenTasks(to: Bundles): void {
  for (const bundles of [to.bundles, to.sandboxBundles]) drop(bundles, new Set());
}

function drop(bundles: string, except: ReadonlySet<string>): void {
  for (const { bundle, taken, ...one } of ownTasks(bundles))
    if (taken && !except.has(nameOf(one))) rmSync(bundle, { recursive: true, force: true });
}
