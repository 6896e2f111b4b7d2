import { rmdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import type { ExitStatus, Process } from '@gantry/client';

/** Deletes a process that has ended, with the pipes that another client made for it and left. */
export async function deleteWithPipes(process: Process): Promise<ExitStatus> {
  const { stdio } = await process.status();
  const ended = await process.delete();
  const directories = new Set<string>();
  for (const file of Object.values(stdio)) {
    if (!file.startsWith('/') || !statSync(file, { throwIfNoEntry: false })?.isFIFO()) continue;
    rmSync(file, { force: true });
    directories.add(path.dirname(file));
  }
  for (const directory of directories) {
    try {
      rmdirSync(directory);
    } catch (reason) {
      // It holds pipes of others as well, or they were quicker.
      const { code } = reason as NodeJS.ErrnoException;
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOENT' && code !== 'EBUSY') throw reason;
    }
  }
  return ended;
}
