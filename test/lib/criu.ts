import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

/** Where scripts/criu.mjs puts a CRIU: in front of a daemon's PATH, its containers can be frozen. */
export const criuDirectory = path.resolve(import.meta.dirname, '../../.cache/criu');

/** Why it cannot be used here; false if it can. */
export function criuUnable(): string | false {
  const criu = path.join(criuDirectory, 'criu');
  if (!existsSync(criu)) return 'no CRIU in .cache/criu (npm test fetches it on Debian)';
  const { status, stderr } = spawnSync(criu, ['check'], { encoding: 'utf8' });
  return status === 0 ? false : `CRIU does not work on this kernel: ${stderr.trim().split('\n')[0]}`;
}
