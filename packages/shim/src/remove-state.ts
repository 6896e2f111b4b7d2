import { existsSync, readdirSync, readFileSync, rmdirSync, unlinkSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import path from 'node:path';
import { hasErrno } from '@gantry/sys';
import { log } from './log.ts';
import type { RuntimeCommand } from './oci-runtime.ts';

/** What has to be known of a container whose processes have all ended. */
export interface EndedContainer {
  id: string;
  /** Of its init process. */
  pid: number;
  runtime: RuntimeCommand;
  /** Its groups as the kernel told them while it ran, if it was asked. */
  cgroups: readonly string[] | undefined;
}

/**
 * Removes what an OCI runtime keeps of a container that has ended, without another process of the runtime. When no process is left, there is
 * no hook of the kind poststop, systemd does not hold the cgroup and no cache monitoring group was made (all of which the caller or this
 * looks for), `runc delete` and `crun delete` do no more than remove the cgroups and the state directory. That is a fifth of a short
 * container's life.
 * @returns false if something is not as expected: then `delete` has to be called, and copes with what is gone already
 */
export async function removeState({ id, pid, runtime, cgroups }: EndedContainer): Promise<boolean> {
  const kind = path.basename(runtime.binary);
  if (runtime.systemdCgroup || process.geteuid?.() !== 0) return false;
  const directory = path.join(runtime.root, id);
  try {
    const groups =
      kind === 'runc' ? runcGroups(directory, pid) : kind === 'crun' ? crunGroups(directory, pid, cgroups) : undefined;
    if (groups === undefined || !groups.every(isGroup)) return false;
    await Promise.all(groups.map(removeGroup));
    // The file by which the runtime knows the container goes before the directory: one without it is removed by any `delete`.
    for (const name of readdirSync(directory)) unlinkSync(path.join(directory, name));
    rmdirSync(directory);
    return true;
  } catch (error) {
    log.debug('state of a container left to its runtime', { id, error });
    return false;
  }
}

/** Only what lies under the place of cgroups, and is none of the hierarchies themselves. */
function isGroup(directory: string): boolean {
  return /^\/sys\/fs\/cgroup\/./.test(directory) && path.normalize(directory) === directory;
}

async function removeGroup(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}

function runcGroups(directory: string, pid: number): string[] | undefined {
  const state = JSON.parse(readFileSync(path.join(directory, 'state.json'), 'utf8')) as {
    init_process_pid?: number;
    cgroup_paths?: Record<string, string> | null;
    intel_rdt_path?: string;
    rootless?: boolean;
  };
  if (state.init_process_pid !== pid || state.intel_rdt_path || state.rootless || !state.cgroup_paths) return undefined;
  return Object.values(state.cgroup_paths);
}

function crunGroups(directory: string, pid: number, cgroups: readonly string[] | undefined): string[] | undefined {
  const status = JSON.parse(readFileSync(path.join(directory, 'status'), 'utf8')) as {
    pid?: number;
    'cgroup-path'?: string;
    'systemd-cgroup'?: boolean;
  };
  const below = status['cgroup-path'];
  // Where both versions are mounted, what we know of the groups is version 1 only.
  if (existsSync('/sys/fs/cgroup/unified')) return undefined;
  if (status.pid !== pid || status['systemd-cgroup'] || !below?.startsWith('/') || below === '/' || !cgroups?.length)
    return undefined;
  return cgroups.every((group) => group.endsWith(below)) ? [...new Set(cgroups)] : undefined;
}
