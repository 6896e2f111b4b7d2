import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { LmdbStore } from './lmdb-store.ts';
import { metadataStoreContract } from './metadata-store-contract.ts';

const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-lmdb-'));
after(() => rmSync(directory, { recursive: true, force: true }));
let number = 0;
const fresh = (): string => path.join(directory, `${++number}`, 'meta.lmdb');

metadataStoreContract('lmdb', async () => {
  const file = fresh();
  const under = {
    store: await LmdbStore.open({ path: file }),
    reopen: async () => {
      await under.store.close();
      under.store = await LmdbStore.open({ path: file });
      return under.store;
    },
    close: () => under.store.close(),
  };
  return under;
});

test('programs that are started inherit nothing of it', async () => {
  const file = fresh();
  const store = await LmdbStore.open({ path: file });
  const { stdout } = spawnSync('ls', ['-l', '/proc/self/fd'], { encoding: 'utf8' });
  assert.match(stdout, / 1 -> /);
  assert.ok(!stdout.includes(file), stdout);
  await store.close();
});

test('migrations run once, in order, on older stores only; a newer store is refused', async () => {
  const file = fresh();
  const first = await LmdbStore.open({ path: file });
  await first.update((tx) => tx.put(['a'], 'one'));
  await first.close();
  const ran: number[] = [];
  const migrations = [2, 3].map((version) => ({ version, apply: () => void ran.push(version) }));
  for (let round = 0; round < 2; round++) await (await LmdbStore.open({ path: file, migrations })).close();
  assert.deepEqual(ran, [2, 3]);
  await (await LmdbStore.open({ path: fresh(), migrations })).close();
  assert.deepEqual(ran, [2, 3], 'a fresh store has nothing to migrate');
  await assert.rejects(LmdbStore.open({ path: file }), (error) => hasCode(error, Code.FailedPrecondition));
});

test('kill -9 in the middle of updates: what was answered is there, each change whole or not at all', async () => {
  const file = fresh();
  const program = `
    import { LmdbStore } from ${JSON.stringify(new URL('./lmdb-store.ts', import.meta.url).href)};
    const store = await LmdbStore.open({ path: ${JSON.stringify(file)} });
    const start = store.view((tx) => tx.get(['count'])) ?? 0;
    for (let n = start + 1; ; n++) {
      await store.update((tx) => { tx.put(['count'], n); for (const half of ['a', 'b']) tx.put([half, String(n)], { n, filler: 'x'.repeat(500) }); });
      process.stdout.write(n + '\\n');
    }`;
  for (let round = 0; round < 4; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.split('\n').length > 20 + round * 7) child.kill('SIGKILL');
    });
    await once(child, 'close');
    const answered = Number(output.trimEnd().split('\n').at(-1));
    assert.ok(answered > 0);
    const store = await LmdbStore.open({ path: file });
    const count = store.view((tx) => tx.get<number>(['count']))!;
    assert.ok(count >= answered, `answered ${answered}, found ${count}`);
    for (const half of ['a', 'b']) {
      assert.equal(
        store.view((tx) => [...tx.list([half])].length),
        count,
      );
    }
    await store.close();
  }
});
