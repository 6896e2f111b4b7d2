// The things that containerd 2.3 deprecates, each met by a running daemon and told by both clients.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, runcOptions } from '../../packages/client/src/index.ts';
import { defaultSpec } from '../../packages/oci/src/index.ts';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

interface Deprecation {
  id: string;
  message: string;
  lastOccurrence: string;
}

const prefix = 'io.containerd.deprecation/';
const settings = `
[plugins.'io.containerd.cri.v1.images'.registry.mirrors.'example.com']
  endpoint = ['https://mirror.example.com']
[plugins.'io.containerd.cri.v1.images'.registry.configs.'example.com'.tls]
  insecure_skip_verify = true
[plugins.'io.containerd.cri.v1.images'.registry.auths.'example.com']
  username = 'x'
[plugins.'io.containerd.cri.v1.runtime']
  enable_cdi = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dir = '/opt/cni/bin'
[plugins.'io.containerd.tracing.processor.v1.otlp']
  endpoint = 'http://localhost:4318'
[plugins.'io.containerd.internal.v1.tracing']
  service_name = 'x'
`;

describe('deprecations', { skip: process.getuid?.() === 0 ? false : 'the daemon needs root' }, () => {
  const temp = makeTempDir('deprecations');
  const directory = path.join(temp.path, 'd');
  const daemon = new TestDaemon(directory, settings);
  const clients = ctrClients().filter(({ name, missing }) => !missing && (name === 'our ctr' || name === 'ctr 2.3.4'));
  const told = async (client = clients[0]!): Promise<Map<string, Deprecation>> => {
    const text = await new CtrSession(client, daemon.address, 'default').ok('deprecations', 'list', '--format', 'json');
    const list = (JSON.parse(text) ?? []) as Deprecation[];
    return new Map(list.map((each) => [each.id.replace(prefix, ''), each]));
  };

  before(() => daemon.start());
  after(async () => {
    await daemon.stop();
    await temp.remove();
  });

  test('of the configuration, and of the host', async () => {
    const met = await told();
    const wanted = [
      ...['cri-registry-mirrors', 'cri-registry-configs', 'cri-registry-auths', 'cri-cni-bin-dir', 'enable-cdi'],
      ...['tracing-processor-config', 'tracing-service-config'],
      ...(existsSync('/sys/fs/cgroup/memory') ? ['cgroup-v1'] : []),
    ];
    assert.deepEqual([...met.keys()].sort(), wanted.sort());
    for (const { message } of met.values()) assert.match(message, /deprecated/);
  });

  test('of a client that names a task API in the runtime’s options', async () => {
    await using client = await Client.connect({ address: daemon.address });
    const spec = defaultSpec('default', 'old');
    await client.containers.create({ id: 'old', spec });
    const options = runcOptions({ taskApiAddress: `unix://${directory}/none.sock`, taskApiVersion: 3 });
    await assert.rejects(client.tasks.create({ container: 'old', rootfs: [], options }), /failed to start shim/);
    await client.containers.delete('old');
    const met = await told();
    assert.ok(met.has('runc-options-task-api-address'));
    assert.ok(met.has('runc-options-task-api-version'));
  });

  test('all clients are told the same, and before each command unless they do not want to be', async () => {
    const lists = await Promise.all(clients.map(told));
    for (const list of lists) assert.deepEqual([...list], [...lists[0]!]);
    for (const client of clients) {
      const ctr = new CtrSession(client, daemon.address, 'default');
      assert.match(
        (await ctr.try('version')).stderr + (await ctr.try('images', 'ls')).stderr,
        /DEPRECATION: .*enable_cdi/,
      );
    }
  });

  test('they are kept with the last time they were seen', async () => {
    const before = await told();
    await daemon.stop();
    const clean = new TestDaemon(directory);
    await clean.start();
    try {
      const kept = await told();
      assert.deepEqual([...kept.keys()].sort(), [...before.keys()].sort());
      const { lastOccurrence } = before.get('cri-registry-mirrors')!;
      assert.equal(kept.get('cri-registry-mirrors')!.lastOccurrence, lastOccurrence);
    } finally {
      await clean.stop();
    }
  });
});
