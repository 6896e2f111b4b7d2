/** The way in for those who do not care which version of cgroups the machine has. */
import type { Any } from '@bufbuild/protobuf/wkt';
import { failedPrecondition } from '@gantry/api';
import type { Roots } from './files.ts';
import type { Cgroup } from './group.ts';
import { cgroupDirectories, cgroupMode } from './mode.ts';
import * as v1 from './v1/group.ts';
import * as v2 from './v2/group.ts';

/** The group at a path of the hierarchy (v1: of all of them). NotFound if there is none. */
export async function loadCgroup(path: string, roots: Roots = {}): Promise<Cgroup> {
  return (await cgroupMode(roots)) === 'unified' ? v2.load(path, roots) : v1.load(path, roots);
}

/** Makes a group; an existing one is well. */
export async function createCgroup(path: string, roots: Roots = {}): Promise<Cgroup> {
  return (await cgroupMode(roots)) === 'unified' ? v2.create(path, roots) : v1.create(path, roots);
}

/** The group a process is in. NotFound if there is no such process. */
export async function cgroupOfPid(pid: number, roots: Roots = {}): Promise<Cgroup> {
  const { unified, controllers } = await cgroupDirectories(pid, roots);
  // In hybrid mode v2 holds no controllers.
  if ((await cgroupMode(roots)) !== 'unified') return new v1.LegacyCgroup(controllers, roots);
  if (unified === undefined) throw failedPrecondition(`the cgroup of process ${pid} is not mounted here`);
  return v2.loadDirectory(unified);
}

/** The metrics of the group a process is in, packed as containerd's shims answer Stats. */
export async function statsForPid(pid: number, roots: Roots = {}): Promise<Any> {
  return (await cgroupOfPid(pid, roots)).stats();
}
