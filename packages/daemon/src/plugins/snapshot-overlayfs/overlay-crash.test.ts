import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LmdbStore } from '../../core/metadata/lmdb-store.ts';
import { OverlaySnapshotter } from './overlay-snapshotter.ts';

const url = (module: string) => JSON.stringify(new URL(module, import.meta.url).href);

/** Prepares, commits and removes without end; prints `+name` or `-name` once a change was answered. */
const worker = `
  import { LmdbStore } from ${url('../../core/metadata/lmdb-store.ts')};
  import { OverlaySnapshotter } from ${url('./overlay-snapshotter.ts')};
  const [root, round] = process.argv.slice(1);
  const overlay = await OverlaySnapshotter.open(root, await LmdbStore.open({ path: root + '/metadata.lmdb' }));
  const say = (text) => process.stdout.write(text + '\\n');
  await Promise.all(['a', 'b', 'c'].map(async (name) => {
    for (let i = 0; ; i++) {
      const key = name + round + '.' + i;
      await overlay.prepare(key, '');
      await overlay.commit('done-' + key, key);
      say('+done-' + key);
      await overlay.view('view-' + key, 'done-' + key);
      say('+view-' + key);
      if (i % 2) {
        say('?view-' + key);
        await overlay.remove('view-' + key);
        say('-view-' + key);
      }
      if (i % 5 === 0) await overlay.cleanup();
    }
  }));
`;

it('survives kill -9 at any moment: no answered snapshot lost, no directory left after cleanup', async () => {
  const root = await mkdtemp(path.join(tmpdir(), 'gantry-overlay-crash-'));
  const known = new Map<string, string>();
  for (let round = 0; round < 5; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', worker, root, String(round)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const lines = createInterface(child.stdout);
    const started = new Promise((resolve) => lines.once('line', resolve));
    lines.on('line', (line) => known.set(line.slice(1), line[0]!));
    await started;
    await sleep(30 + round * 23);
    child.kill('SIGKILL');
    await ended;

    const store = await LmdbStore.open({ path: path.join(root, 'metadata.lmdb') });
    const overlay = await OverlaySnapshotter.open(root, store);
    const listed = new Set<string>();
    for await (const info of overlay.list()) {
      listed.add(info.name);
      const [mount] = await overlay.mounts(info.name);
      assert.ok((await stat(mount!.source)).isDirectory(), info.name);
    }
    // '?': being removed when killed, so both is right.
    for (const [name, state] of known) if (state !== '?') assert.equal(listed.has(name), state === '+', name);
    await overlay.cleanup();
    assert.equal((await readdir(path.join(root, 'snapshots'))).length, listed.size);
    await overlay.close();
  }
  assert.ok(known.size > 5);
  await rm(root, { recursive: true });
});
