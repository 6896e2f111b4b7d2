import net from 'node:net';
import { AT_FDCWD, CLONE, close, connectSocket, hasErrno, O, openat, openSocket, setns, watchFd } from '@gantry/sys';

/** Milliseconds that a program inside may take to accept. */
const patienceMs = 10_000;

/** A connection to a port of `localhost` in a network namespace ('' for this one), by IPv4, or IPv6 where nobody listens there. */
export async function connectInside(netns: string, port: number): Promise<net.Socket> {
  try {
    return await connect(netns, 'ipv4', port);
  } catch (first) {
    try {
      return await connect(netns, 'ipv6', port);
    } catch {
      throw first;
    }
  }
}

async function connect(netns: string, family: 'ipv4' | 'ipv6', port: number): Promise<net.Socket> {
  const fd = socketInside(netns, family);
  try {
    try {
      connectSocket(fd, family, family === 'ipv4' ? '127.0.0.1' : '::1', port);
    } catch (error) {
      if (!hasErrno(error, 'EINPROGRESS')) throw error;
      await connected(fd);
      // Says how it went.
      connectSocket(fd, family, family === 'ipv4' ? '127.0.0.1' : '::1', port);
    }
  } catch (error) {
    if (!hasErrno(error, 'EISCONN')) {
      close(fd);
      throw error;
    }
  }
  return new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
}

/** A socket is of the namespace in which it was made, wherever it is used. */
function socketInside(netns: string, family: 'ipv4' | 'ipv6'): number {
  if (netns === '') return openSocket(family);
  const home = openat(AT_FDCWD, '/proc/thread-self/ns/net', O.RDONLY);
  try {
    const target = openat(AT_FDCWD, netns, O.RDONLY);
    try {
      setns(target, CLONE.NEWNET);
    } finally {
      close(target);
    }
    try {
      return openSocket(family);
    } finally {
      setns(home, CLONE.NEWNET);
    }
  } finally {
    close(home);
  }
}

function connected(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => done(new Error('connection timed out')), patienceMs);
    const watch = watchFd(fd, (error) => done(error), { writable: true });
    const done = (error: Error | undefined): void => {
      clearTimeout(timer);
      watch.close();
      if (error) reject(error);
      else resolve();
    };
  });
}
