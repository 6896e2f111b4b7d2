/** One datagram to a unix socket, which Node cannot send: how a service tells its manager of its state (sd_notify). */
import { closeSync } from 'node:fs';
import { check, native } from './libc.ts';

const socketCall = native('socket', ['int', 'int', 'int']);
const sendtoCall = native('sendto', ['int', 'ptr', 'ulong', 'int', 'ptr', 'uint'], 'long');

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;
const MSG_NOSIGNAL = 0x4000;
const MSG_DONTWAIT = 0x40;

/**
 * Sends to a path, or to an abstract name written with a leading `@`. Never waits.
 * @throws SysError, such as ENOENT and ECONNREFUSED if nobody listens, EAGAIN if the receiver's queue is full
 */
export function sendDatagram(address: string, data: Buffer): void {
  const name = Buffer.from(address);
  const abstract = name[0] === 0x40;
  if (abstract) name[0] = 0;
  if (name.length > 107) throw new RangeError(`socket address ${address} is longer than 107 bytes`);
  const target = Buffer.alloc(2 + name.length + (abstract ? 0 : 1));
  target.writeUInt16LE(AF_UNIX, 0);
  name.copy(target, 2);
  const fd = check('socket', socketCall(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  try {
    check('sendto', sendtoCall(fd, data, data.length, MSG_NOSIGNAL | MSG_DONTWAIT, target, target.length), address);
  } finally {
    closeSync(fd);
  }
}
