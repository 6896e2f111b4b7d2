import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import { ContainerConfigSchema, ContainerState, LinuxContainerResourcesSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { newStatus, readStatus, stateOf, writeStatus } from './container-status.ts';
import { containerExtension, readContainerExtension } from './cri-container.ts';
import { IdMap } from './id-map.ts';
import { NameIndex } from './name-index.ts';

test('things are found by the beginning of their id, if it is of one only', () => {
  const map = new IdMap<string>('container');
  map.set('abc1', 'one');
  map.set('abc2', 'two');
  map.set('abd', 'three');
  assert.equal(map.get('abd'), 'three');
  assert.equal(map.get('abc1'), 'one');
  assert.throws(() => map.get('abc'), /multiple IDs/);
  assert.throws(
    () => map.get('x'),
    (error) => hasCode(error, Code.NotFound),
  );
  assert.equal(map.find(''), undefined);
});

test('a name is one id’s until that gives it back', () => {
  const names = new NameIndex();
  names.reserve('a', '1');
  names.reserve('a', '1');
  assert.throws(() => names.reserve('a', '2'), /name "a" is reserved for "1"/);
  names.release('a', '2');
  assert.equal(names.holder('a'), '1');
  names.release('a', '1');
  names.reserve('a', '2');
});

test('a status is read as it was written; a torn or missing file is none', async () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-cri-status-'));
  try {
    assert.equal(await readStatus(directory), undefined);
    const resources = create(LinuxContainerResourcesSchema, { cpuShares: 512n, memoryLimitInBytes: 1n << 40n });
    const status = { ...newStatus(1_795_000_000_123_456_789n, resources), startedAt: 5n, pid: 7 };
    await writeStatus(directory, status);
    const read = await readStatus(directory);
    assert.deepEqual(read, status);
    assert.equal(stateOf(read!), ContainerState.CONTAINER_RUNNING);
    writeFileSync(path.join(directory, 'status'), '{"Version":"v1","Pi');
    assert.equal(await readStatus(directory), undefined);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a container’s metadata survives its extension, whatever its configuration holds', () => {
  const config = create(ContainerConfigSchema, {
    metadata: { name: 'c', attempt: 2 },
    envs: [{ key: 'A', value: Buffer.from('B') }],
    CDIDevices: [{ name: 'vendor/class=one' }],
    mounts: [{ containerPath: '/a', hostPath: '/b', uidMappings: [{ hostId: 1, containerId: 0, length: 2 }] }],
    linux: { resources: { memoryLimitInBytes: 9_007_199_254_740_993n }, securityContext: { runAsUser: {} } },
  });
  const metadata = {
    id: 'i',
    name: 'n',
    sandboxId: 's',
    config,
    imageRef: 'r',
    logPath: '/l',
    stopSignal: 'SIGINT',
    processLabel: '',
  };
  const read = readContainerExtension(containerExtension(metadata));
  assert.deepEqual(read, { ...metadata, config: read!.config });
  assert.deepEqual(create(ContainerConfigSchema, read!.config), config);
});
