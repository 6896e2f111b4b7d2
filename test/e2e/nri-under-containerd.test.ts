// Plugins written with our SDK, under containerd.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type RunningPlugin, runPlugin, update } from '@gantry/nri';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { crictl } from '../lib/cri-lab.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const image = 'docker.io/test/busybox:1';
const samples = path.resolve('packages/nri/samples');
/** The plugin that nri-wasm.test.ts has here: that it runs there shows that it is one. */
const wasm = path.resolve('.cache/go-bin/nri-plugin.wasm');
const noWasm = existsSync(wasm) ? false : 'nri-plugin.wasm is not in .cache/go-bin (npm test compiles it)';
const missing = TestContainerd.missing(containerd2) || (!existsSync(crictl) && 'crictl is not in .cache/go-bin');

describe('our NRI plugins under containerd 2.3.4', {
  skip: process.getuid?.() === 0 ? missing || false : 'containers need root',
}, () => {
  const temp = makeTempDir('nric');
  const socketPath = path.join(temp.path, 'nri.sock');
  const config = `[plugins.'io.containerd.nri.v1.nri']
  socket_path = '${socketPath}'
  plugin_path = '${temp.path}/plugins'
  plugin_config_path = '${temp.path}/conf.d'
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = '${image}'
  restrict_oom_score_adj = true
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    conf_dir = '${temp.path}/cni'
`;
  const containerd = new TestContainerd(path.join(temp.path, 'd'), containerd2, {}, config);
  const children: ChildProcess[] = [];
  let own: RunningPlugin | undefined;
  let pod = '';
  let podFile = '';

  const ok = async (...args: string[]) => {
    const endpoint = `unix://${containerd.address}`;
    return (await run(crictl, ['-r', endpoint, '-i', endpoint, '-t', '60s', ...args])).stdout.trim();
  };
  const file = (name: string, content: object) => {
    writeFileSync(path.join(temp.path, `${name}.json`), JSON.stringify(content));
    return path.join(temp.path, `${name}.json`);
  };
  const taken = (name: string) =>
    eventually(`${name} takes part`, async () =>
      new RegExp(`plugin .*${name}.* connected and synchronized`).test(containerd.log()) ? true : undefined,
    );
  const container = (name: string, command: string[]) =>
    ok(
      'create',
      pod,
      file(name, { metadata: { name }, image: { image }, command, log_path: `${name}.log`, linux: hostNetwork }),
      podFile,
    );
  // A pod in the machine's own network needs no CNI.
  const hostNetwork = { security_context: { namespace_options: { network: 2 } } };

  before(async () => {
    for (const directory of ['cni', 'plugins', 'conf.d']) mkdirSync(path.join(temp.path, directory));
    writeFileSync(
      path.join(temp.path, 'plugins/05-logger'),
      `#!/bin/sh\nexec ${process.execPath} ${samples}/logger.ts > ${temp.path}/logger.log 2>&1\n`,
      { mode: 0o755 },
    );
    if (!noWasm) {
      copyFileSync(wasm, path.join(temp.path, 'plugins/07-module'));
      chmodSync(path.join(temp.path, 'plugins/07-module'), 0o755);
    }
    const layout = path.join(temp.path, 'image');
    await buildImage(layout, [busyboxLayer], { Cmd: ['sleep', '100000'], Env: ['PATH=/bin'] });
    const archive = path.join(temp.path, 'image.tar');
    await run('skopeo', ['copy', '-q', '--insecure-policy', `oci:${layout}:latest`, `oci-archive:${archive}:${image}`]);
    await containerd.start();
    const ctr = path.join(path.dirname(containerd2), 'ctr');
    await run(ctr, ['-a', containerd.address, '-n', 'k8s.io', 'images', 'import', archive]);
    await eventually(
      'the image is known',
      // Its CRI answers when the installed plugins are there; it takes seconds to compile a module.
      async () => ((await ok('images').catch(() => '')).includes('test/busybox') ? true : undefined),
      120_000,
    );
    for (const [name, index] of [
      ['device-injector', '10'],
      ['ulimit-adjuster', '20'],
    ] as const) {
      const args = [`${samples}/${name}.ts`, '--idx', index, '--socket-path', socketPath];
      children.push(spawn(process.execPath, args, { stdio: 'ignore' }));
      await taken(`${index}-${name}`);
    }
    podFile = file('pod', {
      metadata: { name: 'nri', namespace: 'lab', uid: `uid-${process.pid}`, attempt: 0 },
      log_directory: path.join(temp.path, 'logs'),
      linux: hostNetwork,
      annotations: {
        'devices.nri.io/container.main': '- {path: /dev/injected, type: c, major: 1, minor: 3, file_mode: 0o666}',
        'mounts.nri.io': `[{source: ${temp.path}, destination: /from-plugin, type: bind, options: [bind, ro]}]`,
        'ulimits.nri.containerd.io/container.main': '[{type: nofile, hard: 4096, soft: 1234}]',
      },
    });
    pod = await ok('runp', podFile);
  });
  after(async () => {
    own?.close();
    for (const child of children) await endProcess(child);
    await ok('rmp', '-a', '-f').catch(() => undefined);
    await containerd.stop();
    await temp.remove();
  });

  test('the samples: devices, mounts, limits, and a log of all events', async () => {
    const id = await container('main', ['sh', '-c', 'ls -l /dev/injected; ls /from-plugin; ulimit -n; ulimit -Hn']);
    await ok('start', id);
    await eventually('it ends', async () =>
      (await ok('inspect', id)).includes('CONTAINER_EXITED') ? true : undefined,
    );
    const lines = (await ok('logs', id)).split('\n');
    assert.match(lines[0]!, /^crw-rw-rw-.*1,\s*3.*\/dev\/injected$/);
    assert.ok(lines.includes('logger.log'));
    assert.deepEqual(lines.slice(-2), ['1234', '4096']);
    await ok('rm', id);
    const events = () =>
      readFileSync(`${temp.path}/logger.log`, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { event: string; pod?: string; container?: string });
    await eventually('the end is told of', async () =>
      events().some(({ event }) => event === 'removeContainer') ? true : undefined,
    );
    assert.deepEqual(
      events().map(({ event }) => event),
      [
        'synchronize',
        'runPodSandbox',
        'createContainer',
        'validateContainerAdjustment',
        'postCreateContainer',
        'startContainer',
        'postStartContainer',
        'stopContainer',
        'removeContainer',
      ],
    );
  });

  test('limits out of turn, and an adjustment refused', async () => {
    const id = await container('limited', ['sleep', '1000']);
    await ok('start', id);
    own = await runPlugin(
      {
        // More than the reference reads of a message at first.
        createContainer: (_pod, container, adjust) => {
          if (container.name !== 'large') return;
          for (let index = 0; index < 2000; index++) adjust.env(`LARGE_${index}`, 'x'.repeat(50));
        },
        validateContainerAdjustment: ({ container }) => {
          if (container?.name === 'unwanted') throw new Error('nobody wants it');
        },
      },
      { index: '50', name: 'manager', socketPath },
    );
    await taken('50-manager');
    assert.deepEqual(await own.updateContainers([update(id, { cpu: { shares: 555 } })]), []);
    const { info } = JSON.parse(await ok('inspect', id)) as {
      info: { runtimeSpec: { linux: { resources: { cpu: { shares: number } } } } };
    };
    assert.equal(info.runtimeSpec.linux.resources.cpu.shares, 555);
    await assert.rejects(container('unwanted', ['true']), /nobody wants it/);
    const large = await container('large', ['sh', '-c', 'env | grep -c LARGE_']);
    await ok('start', large);
    await eventually('it ends', async () =>
      (await ok('inspect', large)).includes('CONTAINER_EXITED') ? true : undefined,
    );
    assert.equal(await ok('logs', large), '2000');
  });

  test('the plugin in WebAssembly of the tests here', { skip: noWasm }, async () => {
    assert.match(containerd.log(), /wasm: Configure .* containerd v0\.12\.0/);
    const config = {
      metadata: { name: 'wasm' },
      image: { image },
      command: ['env'],
      log_path: 'wasm.log',
      linux: hostNetwork,
      annotations: { 'wasm.test': 'adjust' },
    };
    const id = await ok('create', pod, file('wasm', config), podFile);
    await ok('start', id);
    await eventually('it ends', async () =>
      (await ok('inspect', id)).includes('CONTAINER_EXITED') ? true : undefined,
    );
    assert.match(await ok('logs', id), /^FROM_WASM=1$/m);
    assert.match(containerd.log(), /wasm: StartContainer nri wasm/);
  });
});
