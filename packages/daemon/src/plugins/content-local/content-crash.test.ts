import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalContent } from './local-content.ts';

/** Writes blobs of growing size without end, in pieces, and prints each digest once its commit was answered. */
const writer = `
  import { LocalContent } from ${JSON.stringify(new URL('./local-content.ts', import.meta.url).href)};
  const store = await LocalContent.open(process.argv[1]);
  const chunk = Buffer.alloc(40_000);
  for (let i = Number(process.argv[2]) * 10_000; ; i++) {
    await Promise.all(['a', 'b', 'c'].map(async (name) => {
      const writer = await store.writer({ ref: name + i });
      for (let part = 0; part <= i % 7; part++) {
        chunk.write(name + i + '.' + part);
        await writer.write(Buffer.from(chunk));
      }
      const { digest } = await writer.commit();
      process.stdout.write(digest + '\\n');
    }));
  }
`;

it('survives kill -9 at any moment: what was answered is whole, what was not is resumable or gone', async () => {
  const root = await mkdtemp(path.join(tmpdir(), 'gantry-crash-'));
  const answered = new Set<string>();
  for (let round = 0; round < 6; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer, root, String(round)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const lines = createInterface(child.stdout);
    const started = new Promise((resolve) => lines.once('line', resolve));
    lines.on('line', (digest) => answered.add(digest));
    await started;
    await sleep(20 + round * 17);
    child.kill('SIGKILL');
    await ended;

    const store = await LocalContent.open(root);
    const there = new Set<string>();
    for await (const { digest, size } of store.list()) {
      there.add(digest);
      await using reader = await store.reader(digest);
      const bytes = await reader.read(0, size);
      assert.equal(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, digest);
    }
    for (const digest of answered) assert.ok(there.has(digest), `${digest} was answered and is gone`);
    for (const { ref, offset } of await store.listStatuses()) {
      const again = await store.writer({ ref });
      assert.equal(again.status().offset, offset);
      await again.write(Buffer.from(`resumed ${ref}`));
      const { size } = await again.commit();
      assert.equal(size, offset + Buffer.byteLength(`resumed ${ref}`));
    }
    assert.deepEqual(await readdir(path.join(root, 'ingest')), []);
  }
  assert.ok(answered.size > 6);
  await rm(root, { recursive: true });
});
