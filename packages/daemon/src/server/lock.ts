// One daemon to a root: an flock on a file there, which the kernel lets go of whatever way the holder ends.
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { failedPrecondition } from '@gantry/api';
import { lockFile } from '@gantry/sys/locks.ts';

/**
 * Takes the root, and answers how to give it back.
 * @throws StatusError FailedPrecondition that names the process which has it
 */
export function lockRoot(root: string): () => void {
  const file = path.join(root, 'gantryd.lock');
  const fd = openSync(file, 'a+', 0o600);
  try {
    lockFile(fd);
  } catch (error) {
    closeSync(fd);
    if ((error as { code?: string }).code !== 'EAGAIN') throw error;
    const holder = readFileSync(file, 'utf8').trim();
    throw failedPrecondition(
      `another daemon uses the root directory ${root}${holder === '' ? '' : ` (process ${holder})`}; stop it, or choose another --root`,
      error,
    );
  }
  ftruncateSync(fd);
  writeSync(fd, `${process.pid}\n`);
  return () => closeSync(fd);
}
