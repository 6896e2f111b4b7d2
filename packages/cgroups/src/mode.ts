/** Which cgroups this machine has, and where a process is in them. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { failedPrecondition, notFound } from '@gantry/api';
import { hasErrno, parseMountInfo } from '@gantry/sys';
import { procOf, type Roots, rootOf } from './files.ts';

/** `legacy`: v1 only; `hybrid`: v1 with an empty v2 beside it; `unified`: v2 only. */
export type CgroupMode = 'legacy' | 'hybrid' | 'unified';

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}

let ownMode: Promise<CgroupMode> | undefined;

/** Asked once for the machine's own: it stays as it is while it is up. */
export function cgroupMode(roots: Roots = {}): Promise<CgroupMode> {
  if (roots.root !== undefined) return findMode(roots);
  ownMode ??= findMode(roots).catch((error) => {
    ownMode = undefined;
    throw error;
  });
  return ownMode;
}

async function findMode(roots: Roots): Promise<CgroupMode> {
  const root = rootOf(roots);
  if (await exists(join(root, 'cgroup.controllers'))) return 'unified';
  if (await exists(join(root, 'unified', 'cgroup.controllers'))) return 'hybrid';
  return 'legacy';
}

/** A process's place in each hierarchy, as its /proc/<pid>/cgroup says. */
export interface CgroupPaths {
  /** v2, if there is one. */
  unified: string | undefined;
  /** v1 by controller; named hierarchies as `name=systemd`. */
  controllers: Map<string, string>;
}

/** Reads the text of /proc/<pid>/cgroup: lines of `id:controllers:path`. */
export function parseCgroupFile(text: string): CgroupPaths {
  const paths: CgroupPaths = { unified: undefined, controllers: new Map() };
  for (const line of text.split('\n')) {
    const match = /^(\d+):([^:]*):(.*)$/.exec(line);
    if (!match) continue;
    const [, id, controllers, path] = match as unknown as [string, string, string, string];
    if (id === '0' && controllers === '') paths.unified = path;
    else for (const controller of controllers.split(',')) paths.controllers.set(controller, path);
  }
  return paths;
}

/** NotFound if there is no such process. */
export async function pidCgroupPaths(pid: number | 'self', roots: Roots = {}): Promise<CgroupPaths> {
  try {
    return parseCgroupFile(await readFile(join(procOf(roots), String(pid), 'cgroup'), 'utf8'));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ESRCH')) throw notFound(`process ${pid}: not found`, error);
    throw error;
  }
}

/** The directories of a process's groups: one for v2, one for each controller of v1. */
export interface CgroupDirectories {
  unified: string | undefined;
  controllers: Map<string, string>;
}

type Mounted = ReturnType<typeof parseMountInfo>[number];

let ownMounts: Promise<Mounted[]> | undefined;

/** The hierarchies that this process sees. Its own are read once: a machine with a thousand containers has thousands of other mounts. */
function cgroupMounts(roots: Roots): Promise<Mounted[]> {
  if (roots.root !== undefined || roots.proc !== undefined) return readCgroupMounts(roots);
  ownMounts ??= readCgroupMounts(roots).catch((error) => {
    ownMounts = undefined;
    throw error;
  });
  return ownMounts;
}

async function readCgroupMounts(roots: Roots): Promise<Mounted[]> {
  const text = await readFile(join(procOf(roots), 'self', 'mountinfo'), 'utf8');
  const lines = text.split('\n').filter((line) => / - cgroup2? /.test(line));
  return parseMountInfo(lines.join('\n'));
}

/** Where a process's groups are among the files, through the mounts that this process sees. */
export async function cgroupDirectories(pid: number | 'self', roots: Roots = {}): Promise<CgroupDirectories> {
  const paths = await pidCgroupPaths(pid, roots);
  const mounts = await cgroupMounts(roots);
  const place = (path: string, matches: (mount: Mounted) => boolean) => {
    for (const mount of mounts) {
      if (!matches(mount)) continue;
      const below = beneath(path, mount.root);
      if (below !== undefined) return join(relocated(mount.mountPoint, roots), below);
    }
    return undefined;
  };
  const controllers = new Map<string, string>();
  for (const [controller, path] of paths.controllers) {
    const directory = place(path, (mount) => mount.fsType === 'cgroup' && mount.superOptions.includes(controller));
    if (directory !== undefined) controllers.set(controller, directory);
  }
  const unified = paths.unified === undefined ? undefined : place(paths.unified, (mount) => mount.fsType === 'cgroup2');
  return { unified, controllers };
}

// A mount may show a part of the hierarchy only; a path with `..` is outside of our cgroup namespace.
function beneath(path: string, mountRoot: string): string | undefined {
  if (path.split('/').includes('..')) return undefined;
  if (mountRoot === '/' || mountRoot.startsWith('/..')) return path;
  if (path === mountRoot) return '/';
  return path.startsWith(`${mountRoot}/`) ? path.slice(mountRoot.length) : undefined;
}

function relocated(mountPoint: string, roots: Roots): string {
  const standard = '/sys/fs/cgroup';
  const root = rootOf(roots);
  if (mountPoint !== standard && !mountPoint.startsWith(`${standard}/`)) return mountPoint;
  return root + mountPoint.slice(standard.length);
}

/** The directory of a process's group for one controller (`memory`, `name=systemd`), on v2 the one there is. */
export async function cgroupPathFor(pid: number | 'self', controller: string, roots: Roots = {}): Promise<string> {
  const { unified, controllers } = await cgroupDirectories(pid, roots);
  const directory = controllers.get(controller) ?? unified;
  if (directory === undefined)
    throw failedPrecondition(`no cgroup of process ${pid} for ${controller} is mounted here`);
  return directory;
}
