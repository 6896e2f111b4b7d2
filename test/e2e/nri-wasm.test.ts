// Plugins in WebAssembly, made with the reference's own bindings.
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const file = path.resolve('.cache/go-bin/nri-plugin.wasm');
const missing = existsSync(file) ? false : 'nri-plugin.wasm is not in .cache/go-bin (npm test compiles it)';

describe('NRI plugins in WebAssembly', { skip: CriLab.missing() || missing }, () => {
  const temp = makeTempDir('nriw');
  const lab = new CriLab(temp.path, { bridge: 'gantrynri1', subnet: '10.215.0.0/24' });
  // A module of ten megabytes is compiled at its start; on a machine that is busy that takes its time.
  lab.daemon.nri = `  plugin_registration_timeout = '60s'\n  plugin_request_timeout = '2s'\n`;
  let pod = '';
  let podFile = '';

  before(async () => {
    const { plugins, configuration } = lab.nriDirectories();
    copyFileSync(file, path.join(plugins, '10-module'));
    chmodSync(path.join(plugins, '10-module'), 0o755);
    writeFileSync(path.join(configuration, 'module.conf'), 'of its own');
    writeFileSync(path.join(plugins, '20-cut'), readFileSync(file).subarray(0, 100_000), { mode: 0o755 });
    await lab.start();
    await lab.ok('pull', 'busybox:1');
    podFile = lab.pod('wasm');
    pod = await lab.ok('runp', podFile);
  });
  after(() => lab.end(temp));

  const create = (wish: string) =>
    lab.crictl(['create', pod, lab.container(wish, ['env'], { annotations: { 'wasm.test': wish } }), podFile], {
      mayFail: true,
    });
  /** What it has logged, with the levels. */
  const told = (): string[] =>
    lab.daemon
      .log()
      .split('\n')
      .filter((line) => line.includes('wasm: '));
  const events = (container: string): string[] =>
    told().flatMap((line) => new RegExp(`wasm: (\\w+) wasm ${container}\\b`).exec(line)?.[1] ?? []);

  /** It is cut off by what it did; the next daemon loads it anew. */
  async function restarted(): Promise<void> {
    await lab.daemon.stop();
    await lab.daemon.start();
  }

  test('it is configured, sees everything, and changes containers', async () => {
    assert.match(told()[0]!, /warn.*wasm: Configure \\?"of its own\\?" containerd v0\.12\.0/);
    assert.match(told()[1]!, /info.*wasm: files: .+, environment: 0, arguments: 0/);
    assert.doesNotMatch(told()[1]!, /files: <nil>/);
    assert.match(lab.daemon.log(), /could not be started.*20-cut/);
    const { code, stdout, stderr } = await create('adjust');
    assert.equal(code, 0, stderr);
    const id = stdout.trim();
    const { info } = await lab.json<{
      info: { runtimeSpec: { annotations: Record<string, string>; linux: { resources: { cpu: { shares: number } } } } };
    }>('inspect', id);
    assert.equal(info.runtimeSpec.annotations['added.test'], 'by-wasm');
    assert.equal(info.runtimeSpec.linux.resources.cpu.shares, 345);
    await lab.ok('start', id);
    await eventually('it ends', async () =>
      (await lab.ok('inspect', id)).includes('CONTAINER_EXITED') ? true : undefined,
    );
    assert.match(await lab.ok('logs', id), /^FROM_WASM=1$/m);
    await lab.ok('rm', id);
    assert.deepEqual(events('adjust'), [
      'CreateContainer',
      'ValidateContainerAdjustment',
      'PostCreateContainer',
      'StartContainer',
      'PostStartContainer',
      'StopContainer',
      'RemoveContainer',
    ]);
  });

  test('what it refuses is not made, with its reason', async () => {
    const { code, stderr } = await create('refuse');
    assert.notEqual(code, 0);
    assert.match(stderr, /10-module.*wasm refuses it/);
    await eventually('its removal is told of', () =>
      events('refuse').at(-1) === 'RemoveContainer' ? true : undefined,
    );
  });

  const harms = {
    panic: /wasm has had enough/,
    exit: /exit code 3/,
    sleep: /did not answer/,
    eat: /out of memory/,
    talk: /did not answer/,
  };
  for (const [harm, reason] of Object.entries(harms)) {
    test(`one that does harm is cut off, and containers go on: ${harm}`, async () => {
      await restarted();
      const begin = lab.daemon.log().length;
      // It would have had a word on what is made of it, too.
      assert.match((await create(harm)).stderr, /validator plugin 10-module failed/);
      const { code, stdout, stderr } = await create(harm);
      assert.equal(code, 0, stderr);
      const log = await eventually('the log says why', () => {
        const text = lab.daemon.log().slice(begin);
        return /cut off.*10-module/.test(text) && reason.test(text) ? text : undefined;
      });
      assert.ok(log.split('\n').filter((line) => line.includes('and on')).length <= 200);
      await lab.ok('rm', stdout.trim());
    });
  }

  test('it is asked to end with the daemon', async () => {
    await restarted();
    assert.match(told().at(-1)!, /Synchronize 1 \d/);
    await lab.daemon.stop();
    assert.match(told().at(-1)!, /Shutdown/);
    await lab.daemon.start();
  });
});
