/** Unix sockets that keep packets whole (SOCK_SEQPACKET), which Node has none of: a message and its descriptors arrive together. */
import { unlinkSync } from 'node:fs';
import { O, POLL } from './constants.ts';
import { hasErrno } from './error.ts';
import { close, dupFd } from './files.ts';
import { check, lastErrno, native, sysError } from './libc.ts';
import { poll } from './pipes.ts';
import { peerCredentials, recvFds, sendFds } from './sockets.ts';
import { type FdWatch, watchFd } from './watch.ts';

const socketCall = native('socket', ['int', 'int', 'int']);
const bindCall = native('bind', ['int', 'ptr', 'uint']);
const listenCall = native('listen', ['int', 'int']);
const connectCall = native('connect', ['int', 'ptr', 'uint']);
const acceptCall = native('accept4', ['int', 'ptr', 'ptr', 'int']);

const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const flags = O.CLOEXEC | O.NONBLOCK;

/** The most bytes and descriptors that one packet may carry. */
export const packetBytesMax = 4096;
export const packetFdsMax = 32;
/** What may wait here for a peer that does not read, before the connection is given up. */
const queueMax = 4096;
/** How many packets one turn of the event loop takes from one connection. */
const turnPackets = 64;

export interface PacketListener {
  /** The descriptors are the listener's to close. */
  packet(data: Buffer, fds: number[]): void;
  /** The other side is gone, or does not keep to the limits. Not called after `close`. */
  gone(): void;
}

/** One connection. It does not keep the process alive. */
export class PacketSocket {
  readonly #fd: number;
  readonly #listener: PacketListener;
  #queue: { data: Buffer; fds: number[] }[] = [];
  readonly #input: FdWatch;
  /** While something waits to be sent: a second descriptor, because there is one watch for each. */
  #output: { watch: FdWatch; fd: number } | undefined;
  #open = true;

  /** @param fd a connected, non-blocking socket of this kind; owned from here on */
  constructor(fd: number, listener: PacketListener) {
    this.#fd = fd;
    this.#listener = listener;
    this.#input = watchFd(fd, () => this.#receive());
    this.#input.unref();
  }

  /** @throws SysError ENOENT or ECONNREFUSED if nobody listens there */
  static connect(path: string, listener: PacketListener): PacketSocket {
    const fd = newSocket();
    try {
      const address = addressOfPath(path);
      check('connect', connectCall(fd, address, address.length), path);
      return new PacketSocket(fd, listener);
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  get open(): boolean {
    return this.#open;
  }

  /** Sends one packet, without waiting; the descriptors stay the caller's. Does nothing once the connection is gone. */
  send(data: Buffer, fds: readonly number[] = []): void {
    if (!this.#open) return;
    if (data.length > packetBytesMax || fds.length > packetFdsMax) throw new RangeError('packet too large');
    if (this.#queue.length === 0 && this.#trySend(data, fds)) return;
    if (!this.#open) return;
    if (this.#queue.length >= queueMax) {
      this.#end();
      return;
    }
    this.#queue.push({ data, fds: fds.map((fd) => dupFd(fd)) });
    this.#watchOutput();
  }

  /** Ends the connection; what waits to be sent is dropped. Harmless twice. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#input.close();
    this.#stopOutput();
    for (const { fds } of this.#queue.splice(0)) for (const fd of fds) close(fd);
    close(this.#fd);
  }

  /** @returns whether it is done with: sent, or the connection has ended over it */
  #trySend(data: Buffer, fds: readonly number[]): boolean {
    try {
      sendFds(this.#fd, data, fds);
      return true;
    } catch (error) {
      if (hasErrno(error, 'EAGAIN')) return false;
      if (!hasErrno(error, 'EPIPE', 'ECONNRESET', 'ENOTCONN')) throw error;
      this.#end();
      return true;
    }
  }

  #watchOutput(): void {
    if (this.#output) return;
    const fd = dupFd(this.#fd);
    this.#output = { fd, watch: watchFd(fd, () => this.#flush(), { writable: true }) };
    this.#output.watch.unref();
  }

  #stopOutput(): void {
    if (!this.#output) return;
    this.#output.watch.close();
    close(this.#output.fd);
    this.#output = undefined;
  }

  #flush(): void {
    while (this.#open && this.#queue[0] && this.#trySend(this.#queue[0].data, this.#queue[0].fds))
      for (const fd of this.#queue.shift()?.fds ?? []) close(fd);
    if (this.#open && this.#queue.length === 0) this.#stopOutput();
  }

  #receive(): void {
    for (let turn = 0; this.#open && turn < turnPackets; turn++) {
      if (turn > 0 && poll([{ fd: this.#fd, events: POLL.IN }])[0] === 0) return;
      let received: ReturnType<typeof recvFds>;
      try {
        received = recvFds(this.#fd, packetFdsMax, packetBytesMax);
      } catch (error) {
        if (!hasErrno(error, 'EAGAIN')) this.#end();
        return;
      }
      const { data, fds, truncated } = received;
      if (data.length === 0 || truncated) {
        for (const fd of fds) close(fd);
        this.#end();
        return;
      }
      this.#listener.packet(data, fds);
    }
  }

  #end(): void {
    if (!this.#open) return;
    this.close();
    this.#listener.gone();
  }
}

/**
 * Listens at a path, with mode 0600; a file that is there is replaced, so the caller must own the directory. Only processes of this
 * user or of root get through.
 */
export function listenPackets(path: string, connected: (fd: number) => void): { close(): void } {
  const fd = newSocket();
  const address = addressOfPath(path);
  try {
    removeFile(path);
    const before = process.umask(0o177);
    try {
      check('bind', bindCall(fd, address, address.length), path);
    } finally {
      process.umask(before);
    }
    check('listen', listenCall(fd, 128), path);
  } catch (error) {
    close(fd);
    throw error;
  }
  const watch = watchFd(fd, () => {
    const connection = acceptCall(fd, null, null, flags);
    if (connection < 0) {
      const errno = lastErrno();
      if (![4, 11, 103].includes(errno)) process.emitWarning(sysError('accept4', errno, path));
      return;
    }
    const { uid } = peerCredentials(connection);
    if (uid === 0 || uid === process.getuid?.()) connected(connection);
    else close(connection);
  });
  watch.unref();
  return {
    close() {
      watch.close();
      close(fd);
      removeFile(path);
    },
  };
}

function newSocket(): number {
  return check('socket', socketCall(AF_UNIX, SOCK_SEQPACKET | flags, 0));
}

function addressOfPath(path: string): Buffer {
  const name = Buffer.from(path);
  if (name.length > 107) throw new RangeError(`socket address ${path} is longer than 107 bytes`);
  const address = Buffer.alloc(2 + name.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  return address;
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
