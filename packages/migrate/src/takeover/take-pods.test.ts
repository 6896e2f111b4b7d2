import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { mountAll, unmountAll } from '@gantry/mount';
import { MNT, readMountInfo } from '@gantry/sys';
import type { ContainerdMetadata, ContainerRecord } from '../containerd/records.ts';
import { dropTakenPods, takePods } from './take-pods.ts';

let folder = '';
const at = (...parts: string[]) => path.join(folder, ...parts);
const from = () => ({ root: at('c/root'), state: at('c/state') });
const to = () => ({ root: at('g/root'), state: at('g/state') });
const cri = 'io.containerd.grpc.v1.cri';

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-pods-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function pods(...records: [id: string, kind: string][]): ContainerdMetadata {
  const containers = records.map(
    ([id, kind]) => ({ id, labels: { 'io.cri-containerd.kind': kind } }) as unknown as ContainerRecord,
  );
  return { version: 4, namespaces: [{ name: 'k8s.io', containers }] } as unknown as ContainerdMetadata;
}

function write(file: string, text: string): void {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  writeFileSync(at(file), text);
}

test('statuses and files of /etc come along, and nothing that is not theirs', async () => {
  write(`c/root/${cri}/containers/one/status`, '{"Version":"v1"}');
  write(`c/root/${cri}/containers/other/status`, 'of no record');
  write(`c/root/${cri}/sandboxes/pod/hosts`, '127.0.0.1 localhost\n');
  write('secret', 'elsewhere');
  symlinkSync(at('secret'), at(`c/root/${cri}/sandboxes/pod/hostname`));
  const metadata = pods(
    ['one', 'container'],
    ['pod', 'sandbox'],
    ['../../../../secret', 'container'],
    ['gone', 'container'],
  );
  for (let times = 0; times < 2; times++) await takePods(metadata, from(), to());
  assert.equal(readFileSync(at(`g/root/${cri}/containers/one/status`), 'utf8'), '{"Version":"v1"}');
  assert.equal(readFileSync(at(`g/root/${cri}/sandboxes/pod/hosts`), 'utf8'), '127.0.0.1 localhost\n');
  for (const absent of ['containers/other', 'containers/gone', 'sandboxes/pod/hostname', 'containers/one/status.new'])
    assert.equal(existsSync(at(`g/root/${cri}`, absent)), false, absent);
  await dropTakenPods(metadata, to());
  assert.equal(existsSync(at(`g/root/${cri}/containers/one`)), false);
  assert.ok(existsSync(at(`c/root/${cri}/containers/one/status`)));
  assert.equal(readFileSync(at('secret'), 'utf8'), 'elsewhere');
});

test('the shared memory of a pod is shown here, and stays there', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async () => {
  const theirs = at(`c/state/${cri}/sandboxes/pod/shm`);
  const ours = at(`g/state/${cri}/sandboxes/pod/shm`);
  mkdirSync(theirs, { recursive: true });
  await mountAll([{ type: 'tmpfs', source: 'shm', options: [] }], theirs);
  try {
    for (let times = 0; times < 2; times++) await takePods(pods(['pod', 'sandbox']), from(), to());
    writeFileSync(path.join(theirs, 'shared'), 'words');
    assert.equal(readFileSync(path.join(ours, 'shared'), 'utf8'), 'words');
    const mounts = () => readMountInfo().filter(({ mountPoint }) => mountPoint === ours).length;
    assert.equal(mounts(), 1);
    await dropTakenPods(pods(['pod', 'sandbox']), to());
    assert.equal(mounts(), 0);
    assert.equal(readFileSync(path.join(theirs, 'shared'), 'utf8'), 'words');
  } finally {
    await unmountAll(theirs, MNT.DETACH);
  }
});
