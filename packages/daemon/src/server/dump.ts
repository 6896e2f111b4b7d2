// What a daemon that seems stuck is asked by SIGUSR2: what keeps it busy and how much memory that takes.
import { readdirSync } from 'node:fs';

/** Handles and requests by kind, memory in bytes, open descriptors. */
export function activeResources(): Record<string, unknown> {
  const handles: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) handles[kind] = (handles[kind] ?? 0) + 1;
  return {
    pid: process.pid,
    uptime: process.uptime(),
    handles,
    memory: process.memoryUsage(),
    descriptors: readdirSync('/proc/self/fd').length,
  };
}
