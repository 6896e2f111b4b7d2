/** A group of cgroup v1: one directory in each controller's hierarchy, not always at the same path. */
import { mkdir, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Any } from '@bufbuild/protobuf/wkt';
import { failedPrecondition, notFound, packAny } from '@gantry/api';
import { type Metrics, MetricsSchema } from '@gantry/api/gen/cgroups/v1/metrics_pb.js';
import { hasErrno } from '@gantry/sys';
import { type Roots, readKeyed, readNumber, readPids, readText, rootOf, writeValue } from '../files.ts';
import type { Cgroup, FreezerState, LinuxResources, OomEvent, Watch } from '../group.ts';
import { killAll, removeTree, subtree } from '../v2/group.ts';
import { freezerState, setFrozen } from './freezer.ts';
import { watchOom } from './oom.ts';
import { readStats } from './stats.ts';
import { memorySettings, settings } from './update.ts';

export class LegacyCgroup implements Cgroup {
  readonly version = 1;
  /** The group's directory by controller. */
  readonly directories: ReadonlyMap<string, string>;
  readonly #roots: Roots;

  constructor(directories: ReadonlyMap<string, string>, roots: Roots = {}) {
    this.directories = directories;
    this.#roots = roots;
  }

  get paths(): string[] {
    return [...new Set(this.directories.values())];
  }

  directory(controller: string): string {
    const directory = this.directories.get(controller);
    if (directory === undefined) throw failedPrecondition(`cgroup controller ${controller} is not available`);
    return directory;
  }

  metrics(): Promise<Metrics> {
    return readStats(this.directories, this.#roots);
  }

  async stats(): Promise<Any> {
    return packAny(MetricsSchema, await this.metrics());
  }

  // Containers' processes are in the same group of every hierarchy; pids is the one that is least often shared.
  #main(): string {
    for (const controller of ['pids', 'devices', 'freezer', 'memory', 'cpu']) {
      const directory = this.directories.get(controller);
      if (directory !== undefined) return directory;
    }
    return this.directory('pids');
  }

  async procs(recursive = false): Promise<number[]> {
    if (!recursive) return readPids(this.#main());
    return (await Promise.all((await subtree(this.#main())).map(readPids))).flat();
  }

  async add(pid: number): Promise<void> {
    for (const directory of this.paths) await writeValue(directory, 'cgroup.procs', pid);
  }

  async update(resources: LinuxResources): Promise<void> {
    for (const { controller, file, value } of settings(resources)) {
      await writeValue(this.directory(controller), file, value);
    }
    if (!resources.memory?.limit && !resources.memory?.swap) return;
    const memory = this.directory('memory');
    const present = await readNumber(memory, 'memory.memsw.limit_in_bytes');
    for (const { file, value } of memorySettings(resources.memory, present)) await writeValue(memory, file, value);
  }

  freezerState(): Promise<FreezerState> {
    return freezerState(this.directory('freezer'));
  }

  freeze(): Promise<void> {
    return setFrozen(this.directory('freezer'), true);
  }

  thaw(): Promise<void> {
    return setFrozen(this.directory('freezer'), false);
  }

  /** Frozen meanwhile where possible, so that no process can fork out of the list. */
  async kill(): Promise<void> {
    const freezer = this.directories.get('freezer');
    if (freezer !== undefined) await setFrozen(freezer, true);
    try {
      await killAll(await this.procs(true));
    } finally {
      if (freezer !== undefined) await setFrozen(freezer, false);
    }
  }

  async delete(): Promise<void> {
    for (const directory of this.paths) await removeTree(directory);
  }

  watchOom(onOom: (event: OomEvent) => void, fromStart = false): Promise<Watch> {
    return watchOom(this.directory('memory'), onOom, fromStart);
  }

  async oomKills(): Promise<bigint> {
    return (await readKeyed(this.directory('memory'), 'memory.oom_control'))?.['oom_kill'] ?? 0n;
  }
}

async function hierarchies(roots: Roots): Promise<string[]> {
  const names = await readdir(rootOf(roots));
  const found: string[] = [];
  for (const name of names) {
    // `cpu,cpuacct` is there under both names too.
    if (name === 'unified' || name.includes(',')) continue;
    if ((await readText(join(rootOf(roots), name), 'cgroup.procs').catch(ignoreOther)) !== undefined) found.push(name);
  }
  return found;
}

function ignoreOther(error: unknown): undefined {
  if (!hasErrno(error, 'ENOTDIR', 'EISDIR')) throw error;
}

/** The group at one path in every hierarchy that has it. NotFound if none does. */
export async function load(path: string, roots: Roots = {}): Promise<LegacyCgroup> {
  const directories = new Map<string, string>();
  for (const controller of await hierarchies(roots)) {
    const directory = join(rootOf(roots), controller, path);
    try {
      await stat(directory);
      directories.set(controller, directory);
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw error;
    }
  }
  if (directories.size === 0) throw notFound(`cgroup ${path}: not found`);
  return new LegacyCgroup(directories, roots);
}

/** Makes the group at a path in every hierarchy. */
export async function create(path: string, roots: Roots = {}): Promise<LegacyCgroup> {
  const directories = new Map<string, string>();
  for (const controller of await hierarchies(roots)) {
    const directory = join(rootOf(roots), controller, path);
    if (controller === 'cpuset') await makeCpuset(directory, join(rootOf(roots), controller));
    else await mkdir(directory, { recursive: true });
    directories.set(controller, directory);
  }
  return new LegacyCgroup(directories, roots);
}

// A new cpuset has no processor and no memory, and takes no process until it has both: they are copied from above.
async function makeCpuset(directory: string, top: string): Promise<void> {
  if (directory === top) return;
  const parent = dirname(directory);
  await makeCpuset(parent, top);
  await mkdir(directory, { recursive: true });
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if ((await readText(directory, file))?.trim() === '') {
      await writeValue(directory, file, ((await readText(parent, file)) ?? '').trim());
    }
  }
}
