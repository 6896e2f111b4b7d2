import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** Programs of plugins that go on although who called them was killed: an earlier daemon, or a plugin. */

const pollMs = 20;
/** How long such a program may go on, milliseconds. */
export const orphanMs = 10_000;

/** Waits until no plugin works for that container any more; after so long those that still do are killed. */
export async function orphansGone(containerId: string, withinMs: number): Promise<void> {
  const end = performance.now() + withinMs;
  for (;;) {
    const left = await pluginsOf(containerId);
    if (left.length === 0) return;
    if (performance.now() > end) for (const pid of left) kill(pid);
    await sleep(pollMs);
  }
}

/** Processes with the environment that such plugins have, and hand on to those that they call. */
async function pluginsOf(containerId: string): Promise<number[]> {
  const wanted = `\0CNI_CONTAINERID=${containerId}\0`;
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const environment = await readFile(`/proc/${name}/environ`, 'latin1');
      if (`\0${environment}`.includes(wanted)) found.push(Number(name));
    } catch {
      // It has ended, or is nobody's that we may look at.
    }
  }
  return found;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It was faster.
  }
}
