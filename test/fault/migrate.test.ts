import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@gantry/client';
import { ctrClients } from '../lib/clients.ts';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { bin } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { Migration } from '../lib/migration.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { Random } from './random.ts';
import { faultRounds } from './rounds.ts';

/**
 * `kill -9` of the migration from containerd, and of the way back, at random moments: run again it comes to the same end, the daemon
 * refuses what is half-made, containerd's files stay as they were, and no container notices.
 */
const rounds = faultRounds(2);
const ctr = ctrClients().find(({ name }) => name === 'ctr 2.3.4')!;
const needsRoot = process.getuid?.() === 0 ? false : 'containers need root';
const image = 'docker.io/test/whiteouts:1';

describe('a migration killed', {
  skip: needsRoot || TestContainerd.missing(containerd2) || ctr.missing || false,
}, () => {
  const temp = makeTempDir('fmig');
  const it = new Migration(temp.path, containerd2, `fmig-${process.pid}`, ctr);
  const { containerd, daemon } = it;
  const random = Random.fromEnvironment();
  const note = path.join(daemon.root, 'takeover.json');
  let lists: Record<string, string[]>;
  let pids: unknown;

  before(async () => {
    const { whiteouts } = await buildTestImages(temp.path, { few: true });
    await run('tar', ['-C', whiteouts, '-cf', `${whiteouts}.tar`, '.']);
    await containerd.start();
    await it.before.ok('images', 'import', '--index-name', image, `${whiteouts}.tar`);
    for (const id of ['one', 'two']) await it.before.ok('run', '-d', image, id, 'sleep', '100000');
    // Enough to be killed in the middle of: blobs, records, and snapshots to copy.
    await using client = await Client.connect({ address: containerd.address, namespace: it.namespace });
    const lease = await client.leases.create({ id: 'keeps' });
    const kept = client.withLease(lease);
    for (let number = 0; number < 150; number++)
      await kept.content.ingest(`blob-${number}`, Buffer.from(`blob ${number} `.repeat(200)));
    const [layer] = (await it.before.ok('snapshots', 'ls')).match(/^sha256:\w+/m)!;
    for (let number = 0; number < 30; number++) await kept.snapshots('overlayfs').prepare(`scratch-${number}`, layer);
    const folders = path.join(it.root, 'io.containerd.snapshotter.v1.overlayfs/snapshots');
    const last = readdirSync(folders).sort((a, b) => Number(b) - Number(a))[0]!;
    await run('sh', ['-c', `cd ${folders}/${last}/fs && for i in $(seq 300); do echo $i > file-$i; done`]);
    lists = await it.lists(it.before);
    pids = await it.tasks(it.before);
    await containerd.stop();
  });

  after(async () => {
    await daemon.stop();
    await containerd.stop();
    await containerd.start();
    try {
      for (const id of ['one', 'two']) await it.before.try('tasks', 'rm', '-f', id);
    } finally {
      await containerd.stop();
    }
    await temp.remove();
  });

  /** Starts it and kills it: as it starts, or a moment after it has begun to write; by then it may have ended. */
  async function killed(...flags: string[]): Promise<void> {
    const before = phase();
    const child = spawn(bin.gantryd, it.arguments(...flags), { stdio: 'ignore' });
    const exit = once(child, 'exit');
    if (random.chance(0.2)) await Promise.race([exit, sleep(random.between(50, 500))]);
    else {
      while (child.exitCode === null && phase() === before) await sleep(2);
      await Promise.race([exit, sleep(random.between(0, 250))]);
    }
    child.kill('SIGKILL');
    await exit;
  }

  const phase = () => (existsSync(note) ? (JSON.parse(readFileSync(note, 'utf8')).phase as string) : 'none');

  async function round(): Promise<string> {
    const files = it.fingerprint();
    const seen: string[] = [];
    for (let left = random.between(1, 4); left > 0 && phase() !== 'done'; left--) {
      await killed();
      seen.push(phase());
      if (phase() === 'started') await assert.rejects(daemon.start(), /the migration from containerd was cut off/);
    }
    if (phase() !== 'done') {
      const { code, stderr } = await it.migrate();
      assert.deepEqual([code, stderr], [0, '']);
    }
    const copies = readdirSync(path.join(daemon.root, 'io.containerd.snapshotter.v1.overlayfs/snapshots'));
    assert.equal(copies.length, 30);
    await daemon.start();
    assert.deepEqual(await it.lists(it.after), lists);
    assert.deepEqual(await it.tasks(it.after), pids);
    if (random.chance(0.5)) await daemon.kill();
    assert.equal(it.fingerprint(), files);
    for (let left = random.between(0, 2); left > 0; left--) await killed('--back');
    const { code, stderr } = await it.migrate('--back');
    assert.deepEqual([code, stderr], [0, '']);
    await containerd.start();
    assert.deepEqual(await it.lists(it.before), lists);
    assert.deepEqual(await it.tasks(it.before), pids);
    await containerd.stop();
    return seen.join(' ');
  }

  test('is run again', async (t) => {
    t.diagnostic(`GANTRY_FAULT_SEED=${random.seed}`);
    for (let number = 1; number <= rounds; number++) {
      try {
        t.diagnostic(`round ${number}: ${await round()}`);
      } catch (error) {
        const told = [daemon.log(), containerd.log()].map((log) =>
          log
            .split('\n')
            .filter((line) => !/loading plugin|garbage collected/.test(line))
            .slice(-40)
            .join('\n'),
        );
        const message = (error as Error).message;
        throw new Error(`round ${number}, GANTRY_FAULT_SEED=${random.seed}: ${message}\n${told.join('\n---\n')}`, {
          cause: error,
        });
      }
    }
  });
});
