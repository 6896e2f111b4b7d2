import { readFileSync } from 'node:fs';
import { notFound } from '@gantry/api';
import { RuntimeError, runtimeStatus } from './oci-runtime.ts';

/** The pid that a runtime wrote. */
export function readPid(file: string): number {
  const pid = Number.parseInt(readFileSync(file, 'utf8'), 10);
  if (!(pid > 0)) throw new Error(`no process id in ${file}`);
  return pid;
}

/** Whether a runtime's failure says that it does not know the container. */
export function isMissing(error: unknown): boolean {
  return error instanceof RuntimeError && /does not exist|no such (file|container)|not found/i.test(error.message);
}

/** The error of a kill, as a client reads it. */
export function killStatus(error: unknown, id: string): unknown {
  const message = error instanceof Error ? error.message.toLowerCase() : '';
  if (/process already finished|container not running|not running|no such process/.test(message))
    return notFound('process already finished: not found', error);
  if (isMissing(error)) return notFound(`no such container ${id}`, error);
  return runtimeStatus(error, 'OCI runtime kill failed');
}
