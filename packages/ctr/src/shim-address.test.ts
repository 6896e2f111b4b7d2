import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { shimAddresses, shimDebugSockets } from './shim-address.ts';

test('a shim is looked for where its bundle says, and where containerd would have put it', () => {
  const state = mkdtempSync(path.join(tmpdir(), 'gantry-shim-address-'));
  try {
    const bundle = path.join(state, 'io.containerd.runtime.v2.task/ns/c1');
    mkdirSync(bundle, { recursive: true });
    const socket = path.join(state, 'gantry.sock');
    assert.equal(shimAddresses(socket, 'ns', 'c1').length, 2);
    writeFileSync(path.join(bundle, 'bootstrap.json'), '{"version":3,"address":"unix:///s/1","protocol":"ttrpc"}');
    assert.equal(shimAddresses(`unix://${socket}`, 'ns', 'c1')[0], 'unix:///s/1');
    assert.deepEqual(shimDebugSockets(socket, 'ns', { id: '', given: 'unix:///s/2' }), ['/s/2.c']);
    assert.deepEqual(shimDebugSockets(socket, 'ns', { id: 'c1', given: '' })[0], '/s/1.c');
    assert.deepEqual(shimDebugSockets('/run/containerd/containerd.sock', 'default', { id: 'nothing', given: '' }), [
      // sha256 of /run/containerd/containerd.sock/default/nothing/debug
      '/run/containerd/s/fd1259bf2af9594f0e431fdaf6bcee1256ed685fef44adea3d4afdeccffe6383',
    ]);
    assert.deepEqual(shimAddresses('/run/containerd/containerd.sock', 'default', 'nothing'), [
      // sha256 of /run/containerd/containerd.sock/default/nothing
      'unix:///run/containerd/s/b1ab9b1d0513f145cde2f8897f33363fb084b0b8cb7d3b4f06cf082e7e6a46d9',
      '\0/containerd-shim/default/nothing/shim.sock',
    ]);
  } finally {
    rmSync(state, { recursive: true });
  }
});
