/** Unix sockets: descriptors passed along (SCM_RIGHTS) and who is at the other end. */
import { O } from './constants.ts';
import { addressOf, check, native } from './libc.ts';

const sendmsgCall = native('sendmsg', ['int', 'ptr', 'int'], 'long');
const recvmsgCall = native('recvmsg', ['int', 'ptr', 'int'], 'long');
const getsockoptCall = native('getsockopt', ['int', 'int', 'int', 'ptr', 'ptr']);
const socketCall = native('socket', ['int', 'int', 'int']);
const connectCall = native('connect', ['int', 'ptr', 'uint']);
const socketpairCall = native('socketpair', ['int', 'int', 'int', 'ptr']);

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_CTRUNC = 8;

interface Message {
  header: Buffer;
  control: Buffer;
  /** Buffers that the header points into. */
  keep: Buffer[];
}

function message(data: Buffer, control: Buffer): Message {
  const vector = Buffer.alloc(16);
  vector.writeBigUInt64LE(addressOf(data), 0);
  vector.writeBigUInt64LE(BigInt(data.length), 8);
  const header = Buffer.alloc(56);
  header.writeBigUInt64LE(addressOf(vector), 16);
  header.writeBigUInt64LE(1n, 24);
  if (control.length > 0) header.writeBigUInt64LE(addressOf(control), 32);
  header.writeBigUInt64LE(BigInt(control.length), 40);
  return { header, control, keep: [vector, data, control] };
}

/** Sends bytes (at least one) and descriptors, which stay open here. Returns the bytes sent. */
export function sendFds(fd: number, data: Buffer, fds: readonly number[]): number {
  const control = Buffer.alloc(fds.length === 0 ? 0 : 16 + Math.ceil((fds.length * 4) / 8) * 8);
  if (fds.length > 0) {
    control.writeBigUInt64LE(BigInt(16 + fds.length * 4), 0);
    control.writeInt32LE(SOL_SOCKET, 8);
    control.writeInt32LE(SCM_RIGHTS, 12);
    fds.forEach((value, index) => {
      control.writeInt32LE(value, 16 + index * 4);
    });
  }
  const { header, keep } = message(data, control);
  const sent = check('sendmsg', sendmsgCall(fd, header, MSG_NOSIGNAL));
  keep.length = 0;
  return sent;
}

/**
 * Receives up to `size` bytes and `count` descriptors (the kernel passes 253 at most), close-on-exec and the caller's to close.
 * EAGAIN if the socket is non-blocking and nothing is there; empty `data` at the end.
 */
export function recvFds(fd: number, count: number, size = 65536): { data: Buffer; fds: number[]; truncated: boolean } {
  const data = Buffer.alloc(size);
  const { header, control, keep } = message(data, Buffer.alloc(16 + Math.ceil((count * 4) / 8) * 8));
  const length = check('recvmsg', recvmsgCall(fd, header, MSG_CMSG_CLOEXEC));
  keep.length = 0;
  const fds: number[] = [];
  const end = Number(header.readBigUInt64LE(40));
  for (let at = 0; at + 16 <= end; ) {
    const size = Number(control.readBigUInt64LE(at));
    if (size < 16) break;
    if (control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS) {
      for (let item = at + 16; item + 4 <= at + size; item += 4) fds.push(control.readInt32LE(item));
    }
    at += Math.ceil(size / 8) * 8;
  }
  return { data: data.subarray(0, length), fds, truncated: (header.readInt32LE(48) & MSG_CTRUNC) !== 0 };
}

/** SO_PEERCRED: who connected (or listened), as the kernel noted it then. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const value = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(12);
  check('getsockopt', getsockoptCall(fd, SOL_SOCKET, 17, value, length));
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/** SO_PEERPIDFD (Linux 6.5): a pidfd of the peer. */
export function peerPidfd(fd: number): number {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  check('getsockopt', getsockoptCall(fd, SOL_SOCKET, 77, value, length));
  return value.readInt32LE(0);
}

/** Two connected unix stream sockets (`nonblocking`: O_NONBLOCK on both). */
export function socketpair(options: { nonblocking?: boolean } = {}): [number, number] {
  const pair = Buffer.alloc(8);
  check('socketpair', socketpairCall(1, 1 | O.CLOEXEC | (options.nonblocking ? O.NONBLOCK : 0), 0, pair));
  return [pair.readInt32LE(0), pair.readInt32LE(4)];
}

export type SocketFamily = 'ipv4' | 'ipv6';

const families: Record<SocketFamily, number> = { ipv4: 2, ipv6: 10 };

/** A TCP socket, non-blocking, of the network namespace that this thread is in. */
export function openSocket(family: SocketFamily): number {
  return check('socket', socketCall(families[family], 1 | O.CLOEXEC | O.NONBLOCK, 0));
}

/** Connects to a loopback address. EINPROGRESS: ask again when it can be written to; EISCONN: it is connected. */
export function connectSocket(fd: number, family: SocketFamily, address: '127.0.0.1' | '::1', port: number): void {
  const struct = Buffer.alloc(family === 'ipv4' ? 16 : 28);
  struct.writeUInt16LE(families[family], 0);
  struct.writeUInt16BE(port, 2);
  if (address === '127.0.0.1') struct.set([127, 0, 0, 1], 4);
  else struct[23] = 1;
  check('connect', connectCall(fd, struct, struct.length), `${address}:${port}`);
}
