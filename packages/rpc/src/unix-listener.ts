import { chmodSync, chownSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { alreadyExists, failedPrecondition } from '@gantry/api';

/** Where to listen: a path, an abstract name (first character NUL), or a descriptor that somebody else bound (socket activation). */
export type UnixAddress = string | { readonly fd: number };

/** Owner and mode of a socket file. Default: the process's own, 0660. */
export interface SocketPermissions {
  uid?: number;
  gid?: number;
  mode?: number;
}

/** The address without `unix://`, with a leading `@` of an abstract name as the NUL it stands for. */
export function socketPath(address: string): string {
  const bare = address.startsWith('unix://')
    ? address.slice(7)
    : address.startsWith('unix:')
      ? address.slice(5)
      : address;
  return bare.startsWith('@') ? `\0${bare.slice(1)}` : bare;
}

/**
 * Listens on a unix socket; resolves when it does. A file left by a server that is gone is replaced.
 * @throws StatusError AlreadyExists if somebody answers there, FailedPrecondition if the path is not a socket
 */
export async function listenUnix(
  server: net.Server,
  address: UnixAddress,
  permissions: SocketPermissions = {},
): Promise<void> {
  if (typeof address !== 'string') return listening(server, () => server.listen({ fd: address.fd }));
  const name = socketPath(address);
  if (name.startsWith('\0')) return listening(server, () => server.listen({ path: name }));
  mkdirSync(path.dirname(name), { recursive: true, mode: 0o711 });
  await removeStale(name);
  return listening(server, () => {
    // Node binds inside listen(), so the file is born 0600 and nobody else gets in before its owner and mode are right.
    const before = process.umask(0o177);
    try {
      server.listen({ path: name });
    } finally {
      process.umask(before);
    }
    if (!server.listening) return;
    if (permissions.uid !== undefined || permissions.gid !== undefined)
      chownSync(name, permissions.uid ?? process.getuid!(), permissions.gid ?? process.getgid!());
    chmodSync(name, permissions.mode ?? 0o660);
  });
}

/** Starts a server and waits until it listens or fails. */
export function listening(server: net.Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.removeListener('error', reject);
      resolve();
    });
    try {
      start();
    } catch (reason) {
      server.removeListener('error', reject);
      server.close();
      reject(reason);
    }
  });
}

async function removeStale(name: string): Promise<void> {
  const stat = lstatSync(name, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket()) throw failedPrecondition(`${name} exists and is not a socket`);
  const answered = await new Promise<boolean>((resolve, reject) => {
    const socket = net.connect({ path: name });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false);
      else reject(error);
    });
  });
  if (answered) throw alreadyExists(`address already in use: ${name}`);
  try {
    unlinkSync(name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
