/** A group of cgroup v2: one directory. */
import { mkdir, readdir, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Any } from '@bufbuild/protobuf/wkt';
import { notFound, packAny } from '@gantry/api';
import { type Metrics, MetricsSchema } from '@gantry/api/gen/cgroups/v2/metrics_pb.js';
import { hasErrno } from '@gantry/sys';
import { type Roots, readKeyed, readPids, readText, rootOf, writeValue } from '../files.ts';
import type { Cgroup, FreezerState, LinuxResources, OomEvent, Watch } from '../group.ts';
import { freezerState, setFrozen } from './freezer.ts';
import { watchOom } from './oom.ts';
import { readStats } from './stats.ts';
import { settings } from './update.ts';

export class UnifiedCgroup implements Cgroup {
  readonly version = 2;
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  get paths(): string[] {
    return [this.directory];
  }

  metrics(): Promise<Metrics> {
    return readStats(this.directory);
  }

  async stats(): Promise<Any> {
    return packAny(MetricsSchema, await this.metrics());
  }

  async procs(recursive = false): Promise<number[]> {
    if (!recursive) return readPids(this.directory);
    return (await Promise.all((await subtree(this.directory)).map(readPids))).flat();
  }

  add(pid: number): Promise<void> {
    return writeValue(this.directory, 'cgroup.procs', pid);
  }

  async update(resources: LinuxResources): Promise<void> {
    for (const { file, value } of settings(resources)) await writeValue(this.directory, file, value);
  }

  freezerState(): Promise<FreezerState> {
    return freezerState(this.directory);
  }

  freeze(): Promise<void> {
    return setFrozen(this.directory, true);
  }

  thaw(): Promise<void> {
    return setFrozen(this.directory, false);
  }

  async kill(): Promise<void> {
    try {
      await writeValue(this.directory, 'cgroup.kill', 1);
    } catch (error) {
      // cgroup.kill came with Linux 5.14.
      if (!hasErrno(error, 'ENOENT')) throw error;
      await killAll(await this.procs(true));
    }
  }

  delete(): Promise<void> {
    return removeTree(this.directory);
  }

  watchOom(onOom: (event: OomEvent) => void, fromStart = false): Promise<Watch> {
    return watchOom(this.directory, onOom, fromStart);
  }

  async oomKills(): Promise<bigint> {
    return (await readKeyed(this.directory, 'memory.events'))?.['oom_kill'] ?? 0n;
  }
}

/** The group at a path of the hierarchy (`/system.slice/x.scope`). NotFound if there is none. */
export async function load(path: string, roots: Roots = {}): Promise<UnifiedCgroup> {
  return loadDirectory(join(rootOf(roots), path));
}

export async function loadDirectory(directory: string): Promise<UnifiedCgroup> {
  try {
    await stat(join(directory, 'cgroup.procs'));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) throw notFound(`cgroup ${directory}: not found`, error);
    throw error;
  }
  return new UnifiedCgroup(directory);
}

/** Makes the group at a path, with all controllers that its parents can pass on. */
export async function create(path: string, roots: Roots = {}): Promise<UnifiedCgroup> {
  let directory = rootOf(roots);
  for (const part of path.split('/').filter(Boolean)) {
    const controllers = ((await readText(directory, 'cgroup.controllers')) ?? '').trim().split(' ').filter(Boolean);
    for (const controller of controllers) {
      await writeValue(directory, 'cgroup.subtree_control', `+${controller}`).catch((error) => {
        // A parent that has processes of its own cannot pass controllers on: the group is then without.
        if (!hasErrno(error, 'EBUSY', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP')) throw error;
      });
    }
    directory = join(directory, part);
    await mkdir(directory, { recursive: true });
  }
  return new UnifiedCgroup(directory);
}

/** A group's directory and all beneath, parents first. */
export async function subtree(directory: string): Promise<string[]> {
  const all = [directory];
  const entries = await readdir(directory, { withFileTypes: true });
  for (const entry of entries) if (entry.isDirectory()) all.push(...(await subtree(join(directory, entry.name))));
  return all;
}

/** Removes a group and those beneath. One with dying processes is busy for a moment: it is tried again for half a second. */
export async function removeTree(directory: string): Promise<void> {
  for (let wait = 5; ; wait *= 2) {
    try {
      for (const group of (await subtree(directory)).reverse()) await rmdir(group);
      return;
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return;
      if (!hasErrno(error, 'EBUSY') || wait > 320) throw error;
      await sleep(wait);
    }
  }
}

export async function killAll(pids: readonly number[]): Promise<void> {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (!hasErrno(error, 'ESRCH')) throw error;
    }
  }
}
