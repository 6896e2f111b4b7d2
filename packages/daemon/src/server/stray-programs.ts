import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { close, pidfdOpen, pidfdSendSignal } from '@gantry/sys';

/**
 * Finds programs again that a killed daemon has left running, such as stream processors that wait for ever. They are known by a
 * variable in their environment, which whatever they start inherits.
 */

const variable = 'GANTRY_STARTED_BY';

export interface ProgramMark {
  /** `NAME=value`, for the environment of each program that must not outlive its daemon. */
  readonly entry: string;
  /** Kills what earlier daemons of the same root have left; answers how many processes that were. */
  endStrays(): Promise<number>;
}

/** A mark of this life of the daemon that works in `root`. */
export function markPrograms(root: string): ProgramMark {
  const start = `${variable}=${root}:`;
  const entry = `${start}${randomUUID()}`;
  const isStray = async (pid: string): Promise<boolean> => {
    const variables = (await readFile(`/proc/${pid}/environ`, 'utf8')).split('\0');
    return variables.some((one) => one.startsWith(start) && one !== entry);
  };
  return {
    entry,
    async endStrays() {
      let ended = 0;
      for (const pid of await readdir('/proc')) {
        if (!/^\d+$/.test(pid)) continue;
        try {
          if (!(await isStray(pid))) continue;
          const fd = pidfdOpen(Number(pid));
          try {
            // Looked at again, now that the number cannot become another process.
            if (!(await isStray(pid))) continue;
            pidfdSendSignal(fd, 'SIGKILL');
            ended++;
          } finally {
            close(fd);
          }
        } catch {
          // It is gone, or nothing of ours to look into.
        }
      }
      return ended;
    },
  };
}
