import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { GroupPaths } from './grouping.ts';

/** A server younger than this may still be on its way to its sockets, seconds. */
const youngS = 10;
/** Clock ticks of /proc, a second. */
const ticks = 100;

/**
 * Ends a group's server that lives and cannot be reached any more: its sockets and its list of containers are gone, as after the state
 * directory was removed or another laid over it. Nobody could ever ask it for anything, and no other can be started beside it.
 * @returns false if there is none such, or none yet
 */
export async function endUnreachable(paths: GroupPaths): Promise<boolean> {
  if ([paths.socket, paths.control, paths.containers].some((file) => existsSync(file))) return false;
  const pid = await holderOf(paths.serving);
  if (pid === undefined || !isOldShim(pid)) return false;
  process.kill(pid, 'SIGKILL');
  return true;
}

/** The process that has bound an abstract socket. */
async function holderOf(name: string): Promise<number | undefined> {
  const { peerCredentials } = await import('@gantry/sys/sockets.ts');
  return new Promise((resolve) => {
    const probe = connect({ path: name });
    probe.once('error', () => resolve(undefined));
    probe.once('connect', () => {
      // Node has no other way to its number.
      const { fd } = (probe as unknown as { _handle: { fd: number } })._handle;
      const { pid } = peerCredentials(fd);
      probe.destroy();
      resolve(pid > 0 ? pid : undefined);
    });
  });
}

function isOldShim(pid: number): boolean {
  try {
    if (!readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith('gantry-shim ')) return false;
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const startedAt = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]) / ticks;
    return Number.parseFloat(readFileSync('/proc/uptime', 'latin1')) - startedAt > youngS;
  } catch {
    return false;
  }
}
