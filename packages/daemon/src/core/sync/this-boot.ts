import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';

/**
 * Names the time for which the kernel keeps what was written and not synced: until the machine is started again. A state directory that
 * is gone counts as that too, as it is on a tmpfs.
 */
export async function thisBoot(stateDirectory: string): Promise<string> {
  const kernel = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const file = path.join(stateDirectory, 'boot');
  try {
    return `${kernel} ${await readFile(file, 'utf8')}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const id = randomUUID();
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
  await writeFile(`${file}.new`, id, { mode: 0o600 });
  await rename(`${file}.new`, file);
  return `${kernel} ${id}`;
}
