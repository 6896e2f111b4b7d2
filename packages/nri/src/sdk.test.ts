import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { Plugin as PluginService, Runtime as RuntimeService } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { createClient, Multiplexer, TtrpcServer, ttrpcTransport } from '@gantry/rpc';
import { PluginConnection, RuntimeConnection } from './connection-numbers.ts';
import { eventMask, eventsOfMask } from './events.ts';
import { runPlugin } from './plugin.ts';
import { parsePluginName } from './plugin-name.ts';
import { update } from './resources.ts';

test('names, indices and masks', () => {
  assert.deepEqual(parsePluginName('10-device-injector'), { index: '10', name: 'device-injector' });
  for (const bad of ['logger', '1-logger', '100-logger', 'ab-logger', '10-', '10-log ger']) {
    assert.throws(
      () => parsePluginName(bad),
      (error) => hasCode(error, Code.InvalidArgument),
      bad,
    );
  }
  assert.equal(eventMask(['runPodSandbox', 'createContainer', 'validateContainerAdjustment']), 0b10000000001001);
  assert.deepEqual(eventsOfMask(0b1001), ['runPodSandbox', 'createContainer']);
});

test('a plugin registers, is configured, sees what is there, and adjusts', async () => {
  const [ours, theirs] = duplexPair();
  const trunk = new Multiplexer(theirs);
  const registered: string[] = [];
  const server = new TtrpcServer();
  server.add(RuntimeService, {
    registerPlugin: async ({ pluginIdx, pluginName }) => {
      registered.push(`${pluginIdx}-${pluginName}`);
      return {};
    },
    updateContainers: async ({ update }) => ({ failed: update.filter(({ containerId }) => containerId === 'gone') }),
  });
  server.serveConnection(trunk.open(RuntimeConnection));
  const plugin = createClient(PluginService, ttrpcTransport(trunk.open(PluginConnection)));

  const seen: string[] = [];
  const running = await runPlugin(
    {
      configure: (config, runtime) => {
        seen.push(`${config} from ${runtime.name} ${runtime.version}`);
        return undefined;
      },
      synchronize: (pods, containers) => {
        seen.push(`${pods.length} pods, ${containers.length} containers`);
        return [update('c1', { cpu: { shares: 7 } })];
      },
      createContainer: (pod, container, adjust) => {
        if (container.name === 'plain') return;
        adjust
          .annotate('a', 'b')
          .removeAnnotation('gone')
          .env('A', pod.name)
          .mount({ destination: '/x', source: '/y', type: 'bind', options: ['ro'] })
          .rlimit('RLIMIT_NOFILE', 2048, 1024)
          .device({ path: '/dev/x', type: 'c', major: 1n, minor: 3n })
          .resources({ memory: { limit: 1 << 20 } })
          .resources({ memory: { swap: 2 << 20 }, cpu: { cpus: '0-1' } })
          .hooks({ poststop: [{ path: '/bin/true' }] })
          .oomScoreAdj(-5);
      },
      stopContainer: () => {
        throw new Error('no');
      },
      validateContainerAdjustment: () => {
        throw new Error('not with me');
      },
    },
    { connection: ours, name: 'test', index: '07' },
  );
  assert.deepEqual(registered, ['07-test']);
  const { events } = await plugin.configure({ config: 'text', runtimeName: 'r', runtimeVersion: 'v' });
  assert.deepEqual(eventsOfMask(events), ['createContainer', 'stopContainer', 'validateContainerAdjustment']);
  const first = await plugin.synchronize({ pods: [{ id: 'p' }], containers: [], more: true });
  assert.deepEqual([first.more, first.update.length], [true, 0]);
  const second = await plugin.synchronize({ pods: [], containers: [{ id: 'c1' }, { id: 'c2' }] });
  assert.equal(second.update[0]?.linux?.resources?.cpu?.shares?.value, 7n);
  assert.deepEqual(seen, ['text from r v', '1 pods, 2 containers']);

  const pod = { id: 'p', name: 'pod' };
  assert.equal((await plugin.createContainer({ pod, container: { id: 'c', name: 'plain' } })).adjust, undefined);
  const { adjust } = await plugin.createContainer({ pod, container: { id: 'c', name: 'other' } });
  assert.deepEqual(adjust!.annotations, { a: 'b', '-gone': '' });
  assert.deepEqual([adjust!.env[0]!.key, adjust!.env[0]!.value], ['A', 'pod']);
  assert.equal(adjust!.linux!.devices[0]!.path, '/dev/x');
  const { memory, cpu } = adjust!.linux!.resources!;
  assert.deepEqual([memory?.limit?.value, memory?.swap?.value, cpu?.cpus], [1n << 20n, 2n << 20n, '0-1']);
  assert.equal(adjust!.linux!.oomScoreAdj!.value, -5n);
  assert.equal(adjust!.hooks!.poststop[0]!.path, '/bin/true');

  await assert.rejects(plugin.stopContainer({ pod, container: { id: 'c' } }), /no/);
  const { reject, reason } = await plugin.validateContainerAdjustment({ pod });
  assert.deepEqual([reject, reason], [true, 'not with me']);
  const failed = await running.updateContainers([update('gone', {}), update('c1', {})]);
  assert.deepEqual(
    failed.map(({ containerId }) => containerId),
    ['gone'],
  );
  await plugin.shutdown({});
  await running.closed;
});
