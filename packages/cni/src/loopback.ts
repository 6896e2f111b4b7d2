import { close, ioctl, socketpair } from '@gantry/sys';

const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;

/** Brings up `lo` in the network namespace that this thread is in; its addresses come with that. */
export function setLoopbackUp(): void {
  // Any socket does: the request is about the namespace that the socket was made in.
  const pair = socketpair();
  try {
    const request = Buffer.alloc(40);
    request.write('lo', 0, 'latin1');
    ioctl(pair[0], SIOCGIFFLAGS, request);
    request.writeInt16LE(request.readInt16LE(16) | IFF_UP, 16);
    ioctl(pair[0], SIOCSIFFLAGS, request);
  } finally {
    for (const fd of pair) close(fd);
  }
}
