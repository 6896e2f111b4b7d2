import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { removeEmptyCgroup } from '@gantry/cgroups';
import { ContainerdLab } from './testing/containerd-lab.ts';
import { ended, ShimLab } from './testing/shim-lab.ts';

// Debian's containerd, and any other that CONTAINERD_PEER names by its directory.
const peers = ['/usr/bin', ...(process.env['CONTAINERD_PEER'] ?? '').split(':').filter(Boolean)];
const noRuntime = await ShimLab.unable('runc');

for (const bin of peers) {
  const skip = ContainerdLab.unable(bin) ?? noRuntime ?? false;
  describe(`gantry-shim under the containerd in ${bin}`, { skip }, () => {
    let lab: ContainerdLab;
    before(async () => {
      lab = new ContainerdLab(bin);
      await lab.open();
    });
    after(async () => {
      await Promise.all(shims().map((pid) => ended(pid, 5000)));
      await lab.close();
      // The group above its containers' groups is nobody's now.
      await removeEmptyCgroup('/default');
    });
    const run = (...args: string[]) => lab.ctr(['run', '--runtime', lab.runtime, ...args]);
    const { image } = ContainerdLab;
    /** The shim processes of this lab. */
    const shims = () =>
      readdirSync('/proc').flatMap((name) => {
        if (!/^\d+$/.test(name)) return [];
        try {
          const line = readFileSync(`/proc/${name}/cmdline`, 'utf8');
          return line.startsWith('gantry-shim') && line.includes(lab.socket) ? [Number(name)] : [];
        } catch {
          return [];
        }
      });

    test('run: output and exit code', async () => {
      const ran = await run('--rm', image, 'r1', 'sh', '-c', 'echo out; echo err >&2; exit 7');
      assert.deepEqual([ran.stdout, ran.stderr, ran.code], ['out\n', 'err\n', 7]);
      const big = await run('--rm', image, 'r2', 'dd', 'if=/dev/zero', 'bs=1M', 'count=8');
      assert.equal(big.stdout.length, 8 * 1024 * 1024);
    });

    test('run: an error of the runtime is the client’s', async () => {
      const ran = await run('--rm', image, 'r3', '/nope');
      assert.equal(ran.code, 1);
      assert.match(ran.stderr, /failed to create shim task: OCI runtime create failed: .*"\/nope"/);
    });

    test('a task in the background: exec, pause, metrics, kill, delete; one shim for two', async () => {
      for (const id of ['d1', 'd2']) assert.equal((await run('-d', image, id, 'sleep', '1000')).code, 0);
      assert.equal(shims().length, 1);
      // In no order: an older containerd lists its map.
      const listed = (await lab.ctr(['tasks', 'ls'])).stdout;
      for (const id of ['d1', 'd2']) assert.match(listed, new RegExp(`${id} +\\d+ +RUNNING`));
      const exec = await lab.ctr(['tasks', 'exec', '--exec-id', 'e1', 'd1', 'sh', '-c', 'echo from exec; exit 3']);
      assert.deepEqual([exec.stdout, exec.code], ['from exec\n', 3]);
      const piped = await lab.ctr(['tasks', 'exec', '--exec-id', 'e2', 'd1', 'cat'], 'piped in');
      assert.deepEqual([piped.stdout, piped.code], ['piped in', 0]);
      assert.equal((await lab.ctr(['tasks', 'pause', 'd1'])).code, 0);
      assert.match((await lab.ctr(['tasks', 'ls'])).stdout, /d1 +\d+ +PAUSED/);
      assert.equal((await lab.ctr(['tasks', 'resume', 'd1'])).code, 0);
      assert.match((await lab.ctr(['tasks', 'metrics', 'd1'])).stdout, /d1 /);
      for (const id of ['d1', 'd2']) {
        assert.equal((await lab.ctr(['tasks', 'kill', '-s', 'SIGKILL', id])).code, 0);
        for (let status = ''; !status.includes('STOPPED'); )
          status = (await lab.ctr(['tasks', 'ls'])).stdout.split('\n').find((line) => line.startsWith(id)) ?? '';
        assert.match((await lab.ctr(['tasks', 'delete', id])).stderr, /137/);
        assert.equal((await lab.ctr(['containers', 'delete', id])).code, 0);
      }
    });

    test('a terminal', () => {
      const ctr = `${bin}/ctr -a ${lab.socket} run --rm -t --runtime ${lab.runtime} ${image} t1 sh -c 'tty; exit 0'`;
      // script(1) makes the terminal that ctr -t asks for.
      const printed = execFileSync('script', ['-qec', ctr, '/dev/null'], {
        timeout: 20_000,
        encoding: 'utf8',
        input: '',
      });
      assert.match(printed, /\/dev\/pts\/0/);
    });

    test('a daemon that was killed finds its tasks again', async () => {
      assert.equal((await run('-d', image, 'k1', 'sleep', '1000')).code, 0);
      const before = (await lab.ctr(['tasks', 'ls'])).stdout;
      await lab.stop();
      await lab.open();
      assert.equal((await lab.ctr(['tasks', 'ls'])).stdout, before);
      assert.equal((await lab.ctr(['tasks', 'kill', '-s', 'SIGKILL', 'k1'])).code, 0);
      for (let status = ''; !status.includes('STOPPED'); ) status = (await lab.ctr(['tasks', 'ls'])).stdout;
      assert.match((await lab.ctr(['tasks', 'delete', 'k1'])).stderr, /137/);
      await lab.ctr(['containers', 'delete', 'k1']);
    });
  });
}
