/** Network interfaces, in the network namespace of the calling thread. */
import { close, ioctl } from './files.ts';
import { check, native } from './libc.ts';

const socketCall = native('socket', ['int', 'int', 'int']);

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
/** struct ifreq: 16 bytes for the name, then a union. */
const ifreqSize = 40;
const flagsOffset = 16;

/** Takes an interface up, as `ip link set NAME up`. @throws SysError ENODEV if there is none of that name */
export function linkUp(name: string): void {
  const fd = check('socket', socketCall(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  try {
    const request = Buffer.alloc(ifreqSize);
    request.write(name, 0, flagsOffset - 1, 'latin1');
    ioctl(fd, SIOCGIFFLAGS, request);
    request.writeInt16LE(request.readInt16LE(flagsOffset) | IFF_UP, flagsOffset);
    ioctl(fd, SIOCSIFFLAGS, request);
  } finally {
    close(fd);
  }
}
