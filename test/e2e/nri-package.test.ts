// The NRI SDK as others install it: packed, in a project of its own that knows nothing of this repository, checked by the compiler and run.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { ContainerSchema, PodSandboxSchema } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { NriHost } from '@gantry/nri/runtime/nri-host.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const top = path.resolve(import.meta.dirname, '../..');
const temp = makeTempDir('nripack');
const project = path.join(temp.path, 'project');
const socketPath = path.join(temp.path, 'nri.sock');
const children: ChildProcess[] = [];
const nothing = (): void => undefined;
const log: string[] = [];
const host = new NriHost(
  {
    ...{ socketPath, pluginPath: `${temp.path}/plugins`, pluginConfigPath: `${temp.path}/conf.d` },
    ...{ processesPath: `${temp.path}/processes`, registrationTimeout: 60_000, requestTimeout: 60_000 },
    ...{ disableConnections: false, runtimeName: 'a test', runtimeVersion: 'v0' },
    validator: {
      ...{ enable: false, reject_oci_hook_adjustment: false, reject_runtime_default_seccomp_adjustment: false },
      ...{ reject_unconfined_seccomp_adjustment: false, reject_custom_seccomp_adjustment: false },
      ...{ reject_namespace_adjustment: false, reject_sysctl_adjustment: false, required_plugins: [] },
      tolerate_missing_plugins_annotation: '',
    },
  },
  { list: async () => ({ pods: [], containers: [] }), update: async () => [], evict: nothing, deprecated: nothing },
  { debug: nothing, info: (message) => log.push(message), warn: (message) => log.push(message), error: nothing },
);

after(async () => {
  await host.stop();
  for (const child of children) await endProcess(child);
  await temp.remove();
});

const plugin = `import { ContainerState, IOPrioClass, type PluginHandlers, pluginOptions, runPlugin, update } from '@gantry/nri';

const running: string[] = [];
const handlers: PluginHandlers = {
  synchronize(pods, containers) {
    for (const { id, state } of containers) if (state === ContainerState.CONTAINER_RUNNING) running.push(id);
  },
  createContainer(pod, container, adjust) {
    if (pod.labels['team'] === 'batch') adjust.oomScoreAdj(500).ioPriority(IOPrioClass.IOPRIO_CLASS_BE, 7);
    adjust.env('CREATED_AS', container.name);
    return [update('other', { cpu: { shares: 2 } }, true)];
  },
  // @ts-expect-error there is no such event
  creatContainer() {},
};
const plugin = await runPlugin(handlers, pluginOptions('outside', '30'));
await plugin.closed;
`;

test('the package in a project of its own', async () => {
  const { stdout } = await run(process.execPath, [path.join(top, 'scripts/pack-nri.mjs'), temp.path]);
  const installed = path.join(project, 'node_modules/@gantry/nri');
  mkdirSync(installed, { recursive: true });
  await run('tar', ['-xzf', stdout.trim(), '-C', installed, '--strip-components=1']);
  for (const needed of ['@bufbuild', 'yaml', '@types']) {
    symlinkSync(path.join(top, 'node_modules', needed), path.join(project, 'node_modules', needed));
  }
  writeFileSync(path.join(project, 'package.json'), '{"type": "module"}');
  writeFileSync(path.join(project, 'plugin.ts'), plugin);
  const flags = '--strict --target es2023 --module nodenext --types node --outDir out plugin.ts'.split(' ');
  await run(path.join(top, 'node_modules/.bin/tsc'), ['--ignoreConfig', ...flags], { cwd: project });

  await host.start();
  const start = async (file: string) => {
    const before = host.events.plugins.length;
    children.push(spawn(process.execPath, [file, '--socket-path', socketPath], { cwd: project, stdio: 'inherit' }));
    await eventually(`${file} takes part`, () => (host.events.plugins.length > before ? true : undefined), 60_000);
  };
  await start('out/plugin.js');
  await start('node_modules/@gantry/nri/samples/ulimit-adjuster.js');
  assert.deepEqual(
    host.events.plugins.map(({ name }) => name),
    ['20-ulimit-adjuster', '30-outside'],
  );
  const pod = create(PodSandboxSchema, {
    id: 'p',
    labels: { team: 'batch' },
    annotations: { 'ulimits.noderesource.dev/container.c': '[{type: nofile, hard: 4096, soft: 1024}]' },
  });
  const { adjustment, updates } = await host.events.createContainer(
    pod,
    create(ContainerSchema, { id: 'c', name: 'c' }),
  );
  assert.deepEqual(
    adjustment.env.map(({ key, value }) => `${key}=${value}`),
    ['CREATED_AS=c'],
  );
  assert.equal(adjustment.linux?.oomScoreAdj?.value, 500n);
  assert.deepEqual(
    adjustment.rlimits.map(({ type, hard, soft }) => [type, hard, soft]),
    [['RLIMIT_NOFILE', 4096n, 1024n]],
  );
  assert.equal(updates[0]?.linux?.resources?.cpu?.shares?.value, 2n);
});
