import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/** Binds an abstract socket, which only one process can, and which its death frees. @returns undefined if another has it. */
export function tryLock(name: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((connection) => connection.destroy());
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error),
    );
    server.listen(name, () => resolve(server));
  });
}

/** Whether nobody holds the lock now. */
export async function isFree(name: string): Promise<boolean> {
  const lock = await tryLock(name);
  if (!lock) return false;
  const closed = once(lock, 'close');
  lock.close();
  await closed;
  return true;
}
