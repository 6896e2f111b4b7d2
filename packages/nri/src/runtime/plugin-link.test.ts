import assert from 'node:assert/strict';
import { type Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import {
  Event,
  Plugin as PluginService,
  PodSandboxSchema,
  Runtime as RuntimeService,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { createClient, type Implementation, Multiplexer, TtrpcServer, ttrpcTransport } from '@gantry/rpc';
import { PluginConnection, RuntimeConnection } from '../connection-numbers.ts';
import { type LinkOptions, PluginLink } from './plugin-link.ts';
import { socketWire } from './plugin-wire.ts';

const options: LinkOptions = {
  runtimeName: 'r',
  runtimeVersion: 'v',
  registrationTimeout: 200,
  requestTimeout: 200,
  onUpdate: async () => [],
  onClose: () => undefined,
  onOldInterface: () => undefined,
  warn: () => undefined,
};

/** The other side, made by hand so that it can misbehave. */
function plugin(trunk: Duplex, handlers: Partial<Implementation<typeof PluginService>>) {
  const multiplexer = new Multiplexer(trunk);
  const server = new TtrpcServer();
  server.add(PluginService, handlers as Implementation<typeof PluginService>);
  server.serveConnection(multiplexer.open(PluginConnection));
  return createClient(RuntimeService, ttrpcTransport(multiplexer.open(RuntimeConnection)));
}

const noConfig = async (): Promise<string> => '';

test('one that does not register in time, or wants events that there are not, is cut off', async () => {
  const [ours] = duplexPair();
  const silent = new PluginLink(socketWire(ours), options);
  await assert.rejects(silent.start(noConfig), /plugin registration timed out/);
  assert.equal(ours.destroyed, true);

  const [mine, theirs] = duplexPair();
  const greedy = new PluginLink(socketWire(mine), options);
  const runtime = plugin(theirs, { configure: async () => ({ events: 1 << 20 }) });
  const started = greedy.start(noConfig);
  await Promise.all([
    runtime.registerPlugin({ pluginName: 'greedy', pluginIdx: '10' }),
    assert.rejects(started, /0x100000/),
  ]);
});

test('a name is checked, and kept', async () => {
  const [mine, theirs] = duplexPair();
  const link = new PluginLink(socketWire(mine), options);
  const runtime = plugin(theirs, { configure: async () => ({ events: 0 }) });
  const started = link.start(async ({ index, name }) => `${index} ${name}`);
  await runtime.registerPlugin({ pluginName: 'honest', pluginIdx: '10' });
  await started;
  await assert.rejects(runtime.registerPlugin({ pluginName: 'other', pluginIdx: '00' }), (error) =>
    hasCode(error, Code.FailedPrecondition),
  );
  assert.equal(link.name, '10-honest');
  assert.equal(link.wants(Event.VALIDATE_CONTAINER_ADJUSTMENT), true);

  const [ours, far] = duplexPair();
  const bad = new PluginLink(socketWire(ours), options);
  const refused = assert.rejects(bad.start(noConfig), /invalid plugin index/);
  await assert.rejects(plugin(far, {}).registerPlugin({ pluginName: 'bad', pluginIdx: '1' }), /invalid plugin index/);
  await refused;
});

test('one from before 0.12 is told by StateChange, and that is noted once', async () => {
  const seen: Event[] = [];
  let noted = 0;
  const [mine, theirs] = duplexPair();
  const calls: string[] = [];
  const link = new PluginLink(socketWire(mine), {
    ...options,
    onOldInterface: () => noted++,
    observer: { called: ({ plugin, operation }) => calls.push(`${plugin} ${operation}`), active: () => undefined },
  });
  const runtime = plugin(theirs, {
    configure: async () => ({ events: 0 }),
    stateChange: async ({ event }) => {
      seen.push(event);
      return {};
    },
  });
  const started = link.start(noConfig);
  await runtime.registerPlugin({ pluginName: 'old', pluginIdx: '10' });
  await started;
  const pod = create(PodSandboxSchema, { id: 'p' });
  await link.notify('runPodSandbox', pod);
  await link.notify('runPodSandbox', pod);
  assert.deepEqual(seen, [Event.RUN_POD_SANDBOX, Event.RUN_POD_SANDBOX]);
  assert.equal(noted, 1);
  assert.deepEqual(calls, ['10-old RunPodSandbox', '10-old RunPodSandbox']);
});
