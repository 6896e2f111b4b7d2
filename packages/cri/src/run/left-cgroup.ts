import path from 'node:path';
import { Code, hasCode } from '@gantry/api';
import { type Cgroup, endGroup, isSystemdPath, loadCgroup, systemdCgroupPath } from '@gantry/cgroups';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { RuntimeSpec } from '@gantry/oci';

/** What a container's own cgroup tells when nobody else can, or has to be emptied of. */

/** The path of the cgroup that is a container's alone; undefined if there is none, or it may be others' too. */
function pathOf(id: string, spec: RuntimeSpec | undefined): string | undefined {
  const named = spec?.linux?.cgroupsPath ?? '';
  const group = isSystemdPath(named) ? systemdCgroupPath(named) : named;
  return group.startsWith('/') && path.basename(group).includes(id) ? group : undefined;
}

async function cgroupAt(group: string): Promise<Cgroup | undefined> {
  try {
    return await loadCgroup(group);
  } catch (error) {
    if (hasCode(error, Code.NotFound)) return undefined;
    throw error;
  }
}

/** Whether the kernel has killed one of a container's processes for want of memory, while nobody was told. */
export async function ranOutOfMemory(id: string, spec: RuntimeSpec | undefined): Promise<boolean> {
  const group = pathOf(id, spec);
  return group !== undefined && ((await (await cgroupAt(group))?.oomKills()) ?? 0n) > 0n;
}

/** Ends what runs of a container that no shim can be asked for any more, and removes its cgroup. Says in the log what it cannot end. */
export async function endLeftProcesses(id: string, spec: RuntimeSpec | undefined, log: Logger): Promise<void> {
  const named = pathOf(id, spec);
  if (named === undefined) return;
  try {
    const processes = await endGroup(named);
    if (processes.length > 0) log.warn('processes of a container whose task is gone are killed', { id, processes });
  } catch (error) {
    log.error('processes of a container whose task is gone cannot be ended', { error, id });
  }
}
