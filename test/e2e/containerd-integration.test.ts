// containerd's own tests of CRI and NRI (its package `integration`), against this daemon.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CriLab } from '../lib/cri-lab.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const program = path.resolve(import.meta.dirname, '../../.cache/go-bin/containerd-integration');
/** The suite has it built in. */
const nriSocket = '/var/run/nri-test.sock';
const skip =
  CriLab.missing() ||
  (existsSync(program) ? false : 'containerd-integration is not in .cache/go-bin (npm test compiles it)');

describe('containerd’s integration tests', { skip }, () => {
  const temp = makeTempDir('integration');
  const lab = new CriLab(temp.path, { bridge: 'gantryint0', subnet: '10.214.0.0/16' });
  const restarting = new AbortController();
  let restarts: Promise<void>;

  before(async () => {
    lab.daemon.nriSocket = nriSocket;
    const programs = path.join(temp.path, 'bin');
    mkdirSync(programs);
    // The suite ends the daemon by name and waits for whoever starts it again. Here only this test's own may be meant.
    const asked = `${temp.path}/restart`;
    const kill = `#!/bin/sh\necho "$1" > ${asked}.new && mv ${asked}.new ${asked}\nwhile [ -e ${asked} ]; do sleep 0.05; done\n`;
    writeFileSync(path.join(programs, 'pkill'), kill, { mode: 0o755 });
    writeFileSync(path.join(programs, 'pidof'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    restarts = restartWhenAsked(asked);
    await lab.start(async (registry) => {
      await lab.fill(registry);
      await registry.fill(path.join(temp.path, 'layouts/busybox'), 'containerd/busybox:1.36');
    });
  });
  after(async () => {
    restarting.abort();
    await restarts;
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  async function restartWhenAsked(file: string): Promise<void> {
    while (!restarting.signal.aborted) {
      if (existsSync(file)) {
        await lab.daemon.stop();
        await lab.daemon.start();
        rmSync(file);
      }
      await sleep(50, undefined, { signal: restarting.signal }).catch(() => undefined);
    }
  }

  async function suite(pattern: string): Promise<Map<string, string>> {
    const args = ['-cri-endpoint', `unix://${lab.daemon.address}`, '-test.v', '-test.run', pattern];
    const env = { ...process.env, PATH: `${temp.path}/bin:${process.env['PATH']}` };
    const { stdout } = await run(program, args, { mayFail: true, timeoutMs: 500_000, env });
    const results = new Map<string, string>();
    for (const [, result, name] of stdout.matchAll(/^--- (PASS|FAIL|SKIP): (\S+)/gm)) results.set(name!, result!);
    const failed = [...results].filter(([, result]) => result === 'FAIL').map(([name]) => name);
    assert.deepEqual(failed, [], stdout.slice(-20_000));
    assert.match(stdout, /^PASS$/m, stdout.slice(-20_000));
    return results;
  }

  test('NRI: plugins on the reference’s stub, with pods and containers, updates and restarts', async () => {
    const results = await suite('^(TestNri|TestUpdatePodSandbox)');
    const passed = [...results.values()].filter((result) => result === 'PASS').length;
    // Two need several NUMA nodes, two several processors.
    assert.ok(passed >= 12, `${passed} of ${results.size}`);
  });
});
