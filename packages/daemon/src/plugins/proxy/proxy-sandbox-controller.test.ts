import assert from 'node:assert/strict';
import { it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { Controller } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import { Exchange } from '../../core/events/event-exchange.ts';
import { BackendAway } from '../../core/remote/backend-away.ts';
import { contextOf } from '../../core/request-context.ts';
import { sandboxControllerContract } from '../../core/sandboxes/sandbox-controller-contract.ts';
import type { SandboxInput } from '../../core/sandboxes/sandbox-store.ts';
import { MemoryController } from '../../core/sandboxes/testing-controller.ts';
import { sandboxControllersService } from '../../services/sandbox-controllers.ts';
import { ProxyConnection } from './proxy-connection.ts';
import { ProxySandboxController } from './proxy-sandbox-controller.ts';
import { TestingPeer } from './testing-peer.ts';

async function memoryPeer() {
  const behind = new MemoryController();
  const events = new Exchange();
  const topics: string[] = [];
  events.listen(({ namespace, topic }) => topics.push(`${namespace}${topic}`));
  const service = sandboxControllersService(new Map([['memory', behind]]), events);
  const peer = await TestingPeer.open((grpc) => grpc.add(Controller, service));
  const connection = new ProxyConnection('memory', peer.address);
  return {
    behind,
    peer,
    topics,
    controller: new ProxySandboxController(connection, 'memory'),
    async close() {
      await connection.close();
      await peer.close();
    },
  };
}

const sandbox = (id: string): SandboxInput => ({
  id,
  labels: { l: '1' },
  runtime: { name: 'test' },
  sandboxer: 'memory',
  extensions: {},
});

sandboxControllerContract('proxy', async () => ({ ...(await memoryPeer()), sandbox }));

it('everything about a sandbox gets through, and each step is an event', async () => {
  const { behind, controller, topics, close } = await memoryPeer();
  const ctx = contextOf('pods');
  const any = (typeUrl: string) => create(AnySchema, { typeUrl, value: Buffer.from([1, 0, 255]) });
  const record: SandboxInput = {
    ...sandbox('pod'),
    runtime: { name: 'vm', options: any('runtime') },
    spec: any('spec'),
    extensions: { extra: any('extra') },
  };
  const options = {
    rootfs: [{ type: 'bind', source: '/x', target: 'y', options: ['ro'] }],
    options: any('options'),
    netnsPath: '/run/netns/pod',
    annotations: { a: 'b' },
  };
  try {
    await controller.create(ctx, record, options);
    const kept = behind.sandboxes.get('pods/pod')!;
    assert.deepEqual(kept.sandbox, record);
    assert.deepEqual(kept.options, options);
    assert.deepEqual((await controller.start(ctx, 'pod')).spec, any('spec'));
    const status = await controller.status(ctx, 'pod', true);
    assert.deepEqual([status.info, status.extra], [{ netns: '/run/netns/pod', a: 'b' }, any('extra')]);
    assert.deepEqual((await controller.metrics(ctx, 'pod')).data, any('options'));
    await controller.update(ctx, 'pod', { ...record, labels: { l: '2' } }, ['labels']);
    assert.deepEqual(behind.sandboxes.get('pods/pod')!.sandbox.labels, { l: '2' });
    await controller.stop(ctx, 'pod', 12);
    assert.deepEqual(behind.timeouts, [12]);
    assert.equal((await controller.wait(ctx, 'pod')).exitStatus, 3);
    assert.deepEqual(topics, ['pods/sandboxes/create', 'pods/sandboxes/start', 'pods/sandboxes/exit']);
  } finally {
    await close();
  }
});

it('a wait outlives a restart of the other process', async () => {
  const { behind, peer, controller, close } = await memoryPeer();
  const ctx = contextOf('pods');
  try {
    await controller.create(ctx, sandbox('pod'));
    await controller.start(ctx, 'pod');
    const { signal } = new AbortController();
    const waiting = controller.wait({ ...ctx, signal }, 'pod');
    await peer.stop();
    await assert.rejects(controller.status(ctx, 'pod'), BackendAway);
    await behind.stop(ctx, 'pod');
    await peer.start();
    assert.equal((await waiting).exitStatus, 3);
  } finally {
    await close();
  }
});
