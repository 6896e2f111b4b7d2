// What the configuration says about the daemon's own process: its place in a cgroup and before the OOM killer.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Logger } from '../core/log/logger.ts';
import type { ServerConfig } from './config/server-config.ts';

/** Where cgroups of one hierarchy are mounted: the unified one, and the folders of v1. */
function cgroupFolders(group: string): string[] {
  const lines = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n');
  if (lines.some((line) => line.startsWith('0::')) && lines.length === 1) return [path.join('/sys/fs/cgroup', group)];
  return lines
    .map((line) => line.split(':')[1]!)
    .filter((controllers) => controllers !== '' && !controllers.startsWith('name='))
    .map((controllers) => path.join('/sys/fs/cgroup', controllers, group));
}

/** Applies the settings. What the kernel refuses is a warning: a daemon in a wrong cgroup is better than none. */
export function applyProcessSettings(config: ServerConfig, log: Logger): void {
  if (config.oom_score !== 0) {
    try {
      writeFileSync('/proc/self/oom_score_adj', String(config.oom_score));
    } catch (error) {
      log.warn('failed to set the OOM score', { oom_score: config.oom_score, error });
    }
  }
  if (config.cgroup.path === '') return;
  for (const folder of cgroupFolders(config.cgroup.path)) {
    try {
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, 'cgroup.procs'), String(process.pid));
    } catch (error) {
      log.warn('failed to enter the cgroup', { path: folder, error });
    }
  }
}
