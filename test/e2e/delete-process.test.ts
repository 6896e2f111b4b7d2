import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { Tasks } from '@gantry/api/gen/services/tasks/v1/tasks_pb.js';
import { createClient, grpcTransport } from '@gantry/rpc';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const image = 'x/busybox:1';
const [own] = ctrClients();

const skip = process.getuid?.() !== 0 ? 'containers need root' : (own!.missing ?? false);

describe('Tasks.DeleteProcess without an exec id', { skip }, () => {
  const temp = makeTempDir('delete-process');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const ctr = new CtrSession(own!, daemon.address, 'default');
  const transport = grpcTransport(daemon.address, { namespace: 'default' });
  const tasks = createClient(Tasks, transport);
  const bundles = () => readdirSync(path.join(daemon.state, 'io.containerd.runtime.v2.task/default'));

  before(async () => {
    const archive = await busyboxArchive(temp.path, image);
    await daemon.start();
    await ctr.ok('images', 'import', archive);
  });
  after(async () => {
    await transport.close();
    await ctr.try('tasks', 'rm', '-f', 'c');
    await daemon.stop();
    await temp.remove();
  });

  test('refuses a running process, and deletes the task of a stopped one', async () => {
    await ctr.ok('run', '-d', image, 'c', 'sh', '-c', 'trap "exit 7" TERM; while :; do sleep 0.1; done');
    const process = { containerId: 'c', execId: '' };
    await assert.rejects(tasks.deleteProcess(process), (error) => hasCode(error, Code.FailedPrecondition));
    const ended = tasks.wait(process);
    await tasks.kill({ ...process, signal: 15 });
    assert.equal((await ended).exitStatus, 7);
    assert.equal((await tasks.deleteProcess(process)).exitStatus, 7);
    assert.deepEqual((await tasks.list({})).tasks, []);
    assert.deepEqual(bundles(), []);
    await assert.rejects(tasks.delete({ containerId: 'c' }), (error) => hasCode(error, Code.NotFound));
    // The name is free.
    await ctr.ok('tasks', 'start', '-d', 'c');
  });

  test('what the shim has deleted for somebody else can be deleted here', async () => {
    await tasks.kill({ containerId: 'c', signal: 9 });
    await tasks.wait({ containerId: 'c' });
    await ctr.ok('shim', '--id', 'c', 'delete');
    await assert.rejects(tasks.delete({ containerId: 'c' }), (error) => hasCode(error, Code.NotFound));
    assert.deepEqual(bundles(), []);
    await ctr.ok('tasks', 'start', '-d', 'c');
  });
});
