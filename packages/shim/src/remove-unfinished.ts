import { readFileSync } from 'node:fs';
import path from 'node:path';
import { endGroup, isSystemdPath, systemdCgroupPath } from '@gantry/cgroups';
import type { ContainerIdentity } from './container-identity.ts';
import { log } from './log.ts';
import { RuntimeError, runRuntime } from './oci-runtime.ts';

/** Whether an OCI runtime did not end by itself, as when memory ran out or somebody killed it. */
export function wasKilled(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (at instanceof RuntimeError && at.killed) return true;
  return false;
}

/**
 * What an OCI runtime that was killed in the middle of `create` has made and not written down: its directory without a state, which
 * `delete --force` removes, and the container's cgroup, with processes that nobody waits for. What is older than the call is left alone.
 * @param seconds how long ago the call began
 */
export async function removeUnfinished({ id, bundle, runtime }: ContainerIdentity, seconds: number): Promise<void> {
  try {
    await runRuntime(runtime, ['delete', '--force', id], { logFile: path.join(bundle, 'log.json') });
  } catch (error) {
    log.debug('a killed OCI runtime had not begun to keep a state', { id, error });
  }
  try {
    const group = cgroupOf(bundle);
    if (!group || !path.basename(group).includes(id)) return;
    const uptime = Number.parseFloat(readFileSync('/proc/uptime', 'latin1'));
    const killed = await endGroup(group, { since: uptime - seconds - 1 });
    log.info('what a killed OCI runtime had made is removed', { id, group, killed });
  } catch (error) {
    log.warn('what a killed OCI runtime has left cannot be removed', { id, error });
  }
}

function cgroupOf(bundle: string): string | undefined {
  const { linux } = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')) as {
    linux?: { cgroupsPath?: string };
  };
  const named = linux?.cgroupsPath ?? '';
  if (isSystemdPath(named)) return systemdCgroupPath(named);
  return named.startsWith('/') ? named : undefined;
}
