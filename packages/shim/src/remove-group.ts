import { readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { isFree, tryLock } from './abstract-lock.ts';
import { groupPathsOfSocket } from './grouping.ts';

/**
 * Takes a container or sandbox off the lists of a shim that is dead. With the last one the shim's files go: its sockets, which nobody else
 * would remove, and its log.
 * @param control the shim's control socket
 */
export async function removeFromDeadGroup(control: string, namespace: string, id: string): Promise<void> {
  const paths = groupPathsOfSocket(control.replace(/\.c$/, ''));
  const lists = [paths.containers, paths.sandboxes];
  for (const list of lists) rmSync(path.join(list, `${namespace}+${id}`), { force: true });
  if (!lists.every(isEmpty)) return;
  // One that is being started has the lock, one that serves the other.
  const lock = await tryLock(paths.lock);
  try {
    if (!lock || !(await isFree(paths.serving)) || !lists.every(isEmpty)) return;
    for (const file of [paths.socket, paths.control, paths.log, ...lists])
      rmSync(file, { recursive: true, force: true });
  } finally {
    lock?.close();
  }
}

function isEmpty(directory: string): boolean {
  try {
    return readdirSync(directory).length === 0;
  } catch {
    return true;
  }
}
