// A bundle that somebody has removed by hand: at the daemon's next start nothing of its container is left.
import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { eventually, processesMentioning } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const image = 'x/busybox:1';
const [own] = ctrClients();
const skip = process.getuid?.() !== 0 ? 'containers need root' : (own!.missing ?? false);

describe('bundles that are gone when the daemon starts', { skip }, () => {
  const temp = makeTempDir('lost-bundle');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const ctr = new CtrSession(own!, daemon.address, 'default');
  const bundles = path.join(daemon.state, 'io.containerd.runtime.v2.task/default');

  before(async () => {
    const archive = await busyboxArchive(temp.path, image);
    await daemon.start();
    await ctr.ok('images', 'import', archive);
  });
  after(async () => {
    await ctr.try('tasks', 'rm', '-f', 'stays');
    await daemon.stop();
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  const pidOf = async (id: string): Promise<number> => {
    const stdout = await ctr.ok('tasks', 'ls');
    return Number(new RegExp(`^${id}\\s+(\\d+)\\s+RUNNING`, 'm').exec(stdout)?.[1] ?? assert.fail(stdout));
  };
  const isAlive = (pid: number): boolean => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  /** The bundle with all that is in it; what is mounted there stays, as rm -rf would leave it. */
  const removeBundle = (id: string): void => {
    for (const name of readdirSync(path.join(bundles, id))) {
      if (name !== 'rootfs') rmSync(path.join(bundles, id, name), { recursive: true });
    }
  };
  const shims = () => processesMentioning(daemon.directory).filter(({ command }) => command.startsWith('gantry-shim '));

  for (const shim of ['lives', 'is dead too']) {
    test(`its process is ended and its id is free, where the shim ${shim}`, async () => {
      await ctr.ok('run', '-d', image, 'lost', 'sleep', '100000');
      await ctr.ok('run', '-d', image, 'stays', 'sleep', '100000');
      const [lost, stays] = [await pidOf('lost'), await pidOf('stays')];
      await daemon.kill();
      removeBundle('lost');
      if (shim === 'is dead too') for (const { pid } of shims()) process.kill(pid, 'SIGKILL');
      await daemon.start();
      await eventually('the process has ended', () => (isAlive(lost) ? undefined : true), 60_000);
      assert.ok(isAlive(stays));
      assert.equal(await pidOf('stays'), stays);
      assert.deepEqual(readdirSync(bundles), ['stays']);
      await ctr.ok('tasks', 'start', '-d', 'lost');
      assert.ok(isAlive(await pidOf('lost')));
      for (const id of ['lost', 'stays']) {
        await ctr.try('tasks', 'rm', '-f', id);
        await ctr.ok('containers', 'rm', id);
      }
    });
  }
});
