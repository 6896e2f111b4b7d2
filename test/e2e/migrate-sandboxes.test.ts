// A sandbox of containerd's controller `shim`, in a shim that serves the Sandbox API (ours, as containerd's own does not), taken over with
// its member and given back.
import assert from 'node:assert/strict';
import { existsSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ctrClients } from '../lib/clients.ts';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { bin } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { Migration } from '../lib/migration.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

process.env['CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS'] = '1';
const ctr = ctrClients().find(({ name }) => name === 'ctr 2.3.4')!;
const skip = process.getuid?.() === 0 ? TestContainerd.missing(containerd2) || ctr.missing || false : 'needs root';
const image = 'docker.io/test/busybox:1';

describe('a sandbox of containerd 2.3.4', { skip }, () => {
  const temp = makeTempDir('msb');
  const it = new Migration(temp.path, containerd2, 'msb', ctr, {
    // Looked for by containerd and, for what is started later, by our daemon.
    env: { PATH: `${temp.path}:${process.env['PATH']}`, GANTRY_SHIM_LINGER_MS: '200' },
    config: `[plugins.'io.containerd.shim.v1.manager']\n  socket_dir = '${temp.path}/s'\n`,
  });
  const { containerd, daemon } = it;
  const sleeper = ['sh', '-c', 'trap "exit 5" TERM; sleep 100000 & wait'];
  let lists: Record<string, string[]>;
  let info = '';
  const sandbox = async (at = it.after) => (await at.ok('sandboxes', 'info', 'pod')).replace(/"UpdatedAt".*/, '');

  before(async () => {
    symlinkSync(bin.shim, path.join(temp.path, 'containerd-shim-gantry-v1'));
    const { busybox } = await buildTestImages(temp.path, { few: true });
    await run('tar', ['-C', busybox, '-cf', `${busybox}.tar`, '.']);
    await containerd.start();
    await it.before.ok('images', 'import', '--index-name', image, `${busybox}.tar`);
    const spec = path.join(temp.path, 'spec.json');
    writeFileSync(spec, JSON.stringify({ ociVersion: '1.0.2', hostname: 'podhost' }));
    await it.before.ok('sandboxes', 'run', '--runtime', 'io.containerd.gantry.v1', spec, 'pod');
    await it.before.ok(
      'run',
      '-d',
      '--runtime',
      'io.containerd.gantry.v1',
      '--sandbox',
      'pod',
      image,
      'member',
      ...sleeper,
    );
    lists = await it.lists(it.before);
    info = await sandbox(it.before);
    await containerd.stop();
  });
  after(async () => {
    await daemon.stop();
    await containerd.stop();
    await containerd.start();
    try {
      for (const id of ['member', 'second']) await it.before.try('tasks', 'rm', '-f', id);
      await it.before.try('sandboxes', 'rm', '--force', 'pod');
    } finally {
      await containerd.stop();
    }
    await temp.remove();
  });

  test('is taken over with its member, and takes further ones', async () => {
    const { code, stdout, stderr } = await it.migrate();
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /^msb +pod$/m);
    await daemon.start();
    assert.deepEqual(await it.lists(it.after), lists);
    assert.equal(await sandbox(), info);
    assert.equal(await it.after.ok('tasks', 'exec', '--exec-id', 'e', 'member', 'echo', 'inside'), 'inside\n');
    await it.after.ok(
      'run',
      '-d',
      '--runtime',
      'io.containerd.gantry.v1',
      '--sandbox',
      'pod',
      image,
      'second',
      ...sleeper,
    );
    await it.after.try('tasks', 'rm', '-f', 'second');
    await it.after.ok('containers', 'rm', 'second');
  });

  test('and given back', async () => {
    assert.equal((await it.migrate('--back')).code, 0);
    await containerd.start();
    assert.deepEqual(await it.lists(it.before), lists);
    assert.equal(await sandbox(it.before), info);
    assert.equal(await it.before.ok('tasks', 'exec', '--exec-id', 'e', 'member', 'echo', 'still'), 'still\n');
    await containerd.stop();
  });

  test('ended under this daemon, it lets the old socket go', async () => {
    assert.equal((await it.migrate()).code, 0);
    await daemon.start();
    const ttrpc = `${containerd.address}.ttrpc`;
    assert.ok(existsSync(ttrpc));
    await it.after.try('tasks', 'rm', '-f', 'member');
    assert.ok(existsSync(ttrpc));
    await it.after.ok('sandboxes', 'rm', 'pod');
    await eventually('the old socket is closed', () => (existsSync(ttrpc) ? undefined : true), 60_000);
  });
});
