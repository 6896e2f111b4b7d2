import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { sendDatagram } from './datagrams.ts';
import { check, native } from './libc.ts';
import { recvFds } from './sockets.ts';

const socketCall = native('socket', ['int', 'int', 'int']);
const bindCall = native('bind', ['int', 'ptr', 'uint']);

/** A bound datagram socket, close-on-exec and non-blocking. */
function receiver(name: Buffer): number {
  const address = Buffer.concat([Buffer.from([1, 0]), name]);
  const fd = check('socket', socketCall(1, 2 | 0x80000 | 0x800, 0));
  check('bind', bindCall(fd, address, address.length));
  return fd;
}

test('a datagram arrives at a path and at an abstract name', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-sys-'));
  const file = path.join(dir, 'notify');
  const abstract = `gantry-sys-${process.pid}`;
  const fds = [receiver(Buffer.from(`${file}\0`)), receiver(Buffer.from(`\0${abstract}`))];
  try {
    sendDatagram(file, Buffer.from('READY=1'));
    sendDatagram(`@${abstract}`, Buffer.from('STOPPING=1'));
    assert.deepEqual(
      fds.map((fd) => recvFds(fd, 1).data.toString()),
      ['READY=1', 'STOPPING=1'],
    );
    assert.throws(() => sendDatagram(path.join(dir, 'nobody'), Buffer.from('x')), { code: 'ENOENT' });
  } finally {
    for (const fd of fds) closeSync(fd);
    rmSync(dir, { recursive: true });
  }
});
