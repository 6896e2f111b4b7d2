// Shims that are servers of this process.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, hasCode, packAny } from '@gantry/api';
import { Task as TaskV2 } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import { Task as TaskV3 } from '@gantry/api/gen/runtime/task/v3/shim_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { GrpcServer, TtrpcServer } from '@gantry/rpc';
import type { Logger } from '../../core/log/logger.ts';
import type { Bootstrap } from './bootstrap.ts';
import { removeDeadSocket, sweepDeadGroups } from './dead-socket.ts';
import type { RuntimePath } from './runtime-path.ts';
import { ShimConnection } from './shim-connection.ts';
import { ShimGroup } from './shim-group.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'gantry-shim-group-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const quiet = () => {};
const log: Logger = { trace: quiet, debug: quiet, info: quiet, warn: quiet, error: quiet, with: () => log };

/** A shim of one version and protocol that knows its own pid and counts what it is asked. */
async function serve(name: string, version: 2 | 3, protocol: 'ttrpc' | 'grpc') {
  const socket = path.join(directory, name);
  const server = protocol === 'grpc' ? new GrpcServer() : new TtrpcServer();
  const asked: string[] = [];
  const methods = {
    connect: () => ({ shimPid: 7, taskPid: 8 }),
    shutdown: ({ id }: { id: string }) => {
      asked.push(`shutdown ${id}`);
      return {};
    },
  };
  if (version === 2) server.add(TaskV2, methods);
  else server.add(TaskV3, methods);
  await server.listenUnix(socket);
  const bootstrap: Bootstrap = { version, address: `unix://${socket}`, protocol };
  return { bootstrap, asked, close: () => server.close() };
}

for (const protocol of ['ttrpc', 'grpc'] as const) {
  test(`a connection over ${protocol} speaks both versions and tells at once when the shim is gone`, async () => {
    for (const version of [2, 3] as const) {
      const shim = await serve(`${protocol}${version}`, version, protocol);
      const connection = await ShimConnection.connect(shim.bootstrap, 5000);
      assert.equal((await connection.task.connect({ id: 'web' })).taskPid, 8);
      assert.equal(connection.open, true);
      await shim.close();
      await connection.closed;
      assert.equal(connection.open, false);
      await assert.rejects(connection.task.connect({ id: 'web' }));
      await assert.rejects(ShimConnection.connect(shim.bootstrap, 60_000), (error) => hasCode(error, Code.Unavailable));
    }
  });
}

test('an old process that is announced as a new one is spoken to as what it is', async () => {
  const shim = await serve('old', 2, 'ttrpc');
  const connection = await ShimConnection.connect({ ...shim.bootstrap, version: 3 }, 5000);
  const error = await connection.task.connect({ id: 'web' }).catch((reason: unknown) => reason);
  assert.equal(hasCode(error, Code.Unimplemented), true);
  assert.equal(connection.downgrade(error), true);
  assert.equal((await connection.task.connect({ id: 'web' })).taskPid, 8);
  assert.equal(connection.bootstrap.version, 2);
  assert.equal(connection.downgrade(error), false);
  await connection.close();
  await shim.close();
});

test('other kinds of sockets are refused by name', async () => {
  for (const address of ['vsock://3:1024', 'hvsock:///x.sock:1024'])
    await assert.rejects(
      ShimConnection.connect({ version: 3, address, protocol: 'ttrpc' }, 1000),
      (error: Error) => hasCode(error, Code.Unimplemented) && /unsupported protocol: h?vsock/.test(error.message),
    );
});

test('the last task takes its shim with it, but not that of a sandbox', async () => {
  for (const borrowed of [false, true]) {
    const shim = await serve(`group-${borrowed}`, 3, 'ttrpc');
    const bundle = path.join(directory, `bundle-${borrowed}`);
    mkdirSync(bundle);
    let empty = 0;
    const environment = {
      address: '',
      ttrpcAddress: '',
      publishBinary: '',
      logLevel: 'info',
      extra: [],
      socketDir: '',
    } as const;
    const settings = { environment, loadTimeoutMs: 5000, startTimeoutMs: 5000, idleMs: 0, log };
    const group = new ShimGroup('key', { path: '/shim', own: false }, undefined, settings, () => empty++);
    group.borrowed = borrowed;
    const files = { id: 'web', namespace: 'ns', path: bundle, work: '' };
    const member = { files, lost: () => assert.fail('not lost'), readopted: () => assert.fail('not adopted') };
    group.add(member);
    assert.ok(existsSync(path.join(bundle, 'log')), 'the log can be written');
    const connection = await group.attach(shim.bootstrap);
    await group.remove(member);
    assert.equal(empty, 1);
    assert.equal(connection.open, false);
    assert.deepEqual(shim.asked, borrowed ? [] : ['shutdown web']);
    await shim.close();
  }
});

test('what a killed shim of ours leaves is removed, but not what it says of containers', async () => {
  const folder = path.join(directory, 'groups');
  mkdirSync(folder);
  for (const name of ['empty', 'full']) {
    const file = path.join(folder, name);
    const listen = `require('net').createServer().listen(${JSON.stringify(file)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', listen]);
    for (const end of ['.c', '.log']) writeFileSync(`${file}${end}`, '');
    for (const end of ['.d', '.sb']) mkdirSync(`${file}${end}`);
  }
  writeFileSync(path.join(folder, 'full.d/ns+id'), '/bundle');
  await sweepDeadGroups(folder);
  assert.deepEqual(readdirSync(folder).sort(), ['full', 'full.c', 'full.d', 'full.log', 'full.sb']);
  await sweepDeadGroups(path.join(folder, 'none'));
});

test('the socket of a dead shim is removed, that of a living one and what is no socket are not', async () => {
  const file = path.join(directory, 'dead');
  const die = `require('net').createServer().listen(${JSON.stringify(file)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', die]);
  assert.ok(existsSync(file));
  await removeDeadSocket(`unix://${file}`);
  assert.equal(existsSync(file), false);
  const living = await serve('living', 3, 'ttrpc');
  const plain = path.join(directory, 'plain');
  writeFileSync(plain, '');
  for (const address of [living.bootstrap.address, plain, '/no/such/socket', 'vsock://3:1']) {
    await removeDeadSocket(address);
  }
  assert.ok(existsSync(plain));
  assert.ok(existsSync(path.join(directory, 'living')));
  await living.close();
});

test('tasks of all user namespaces share a shim, and those of other options do not', () => {
  const runtime = { path: '/bin/shim', own: true } as unknown as RuntimePath;
  const key = (options: MessageInitShape<typeof OptionsSchema>) =>
    ShimGroup.keyFor('k8s.io', runtime, packAny(OptionsSchema, options));
  assert.equal(key({ binaryName: 'runc', ioUid: 65536, ioGid: 65536 }), key({ binaryName: 'runc' }));
  assert.notEqual(key({ binaryName: 'crun', ioUid: 65536, ioGid: 65536 }), key({ binaryName: 'runc' }));
});
