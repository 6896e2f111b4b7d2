import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { contentBackendContract } from '../../core/content/content-backend-contract.ts';
import { LocalContent } from './local-content.ts';

const directory = () => mkdtemp(path.join(tmpdir(), 'gantry-content-'));

contentBackendContract('local', async () => {
  const root = await directory();
  let backend = await LocalContent.open(root);
  return {
    backend,
    async reopen() {
      backend = await LocalContent.open(root);
      return backend;
    },
    async close() {
      await rm(root, { recursive: true });
    },
  };
});

describe('local content on disk', () => {
  it("has containerd's layout", async () => {
    const root = await directory();
    const store = await LocalContent.open(root);
    const writer = await store.writer({ ref: 'layout', size: 5 });
    await writer.write(Buffer.from('hel'));
    const dir = path.join(root, 'ingest', createHash('sha256').update('layout').digest('hex'));
    assert.deepEqual((await readdir(dir)).sort(), ['data', 'ref', 'startedat', 'total', 'updatedat']);
    assert.equal(await readFile(path.join(dir, 'ref'), 'utf8'), 'layout');
    assert.equal(await readFile(path.join(dir, 'total'), 'utf8'), '5');
    assert.match(await readFile(path.join(dir, 'startedat'), 'utf8'), /^\d{4}-\d\d-\d\dT.*Z$/);
    await writer.write(Buffer.from('lo'));
    const { digest } = await writer.commit({ size: 5 });
    assert.deepEqual(await readdir(path.join(root, 'ingest')), []);
    const blob = path.join(root, 'blobs', ...digest.split(':'));
    assert.equal((await stat(blob)).mode & 0o777, 0o444);
    assert.equal(await readFile(blob, 'utf8'), 'hello');
    await rm(root, { recursive: true });
  });

  it('puts small blobs read-only, and sweeps what was not named yet', async () => {
    const root = await directory();
    const store = await LocalContent.open(root);
    const digest = `sha256:${createHash('sha256').update('put').digest('hex')}`;
    await store.put(digest, Buffer.from('put'));
    assert.equal((await stat(path.join(root, 'blobs', ...digest.split(':')))).mode & 0o777, 0o444);
    assert.deepEqual(await readdir(path.join(root, 'new')), []);
    await assert.rejects(store.put('sha256:../../x', Buffer.from('x')));
    assert.deepEqual(await readdir(path.join(root, 'new')), []);
    await writeFile(path.join(root, 'new', '7'), 'of a killed daemon');
    await LocalContent.open(root);
    assert.deepEqual(await readdir(path.join(root, 'new')), []);
    await rm(root, { recursive: true });
  });

  it('sweeps halves of ingests when opened', async () => {
    const root = await directory();
    const half = path.join(root, 'ingest', 'a'.repeat(64));
    const published = path.join(root, 'ingest', 'b'.repeat(64));
    await mkdir(half, { recursive: true });
    await mkdir(published);
    await writeFile(path.join(published, 'ref'), 'published');
    await LocalContent.open(root);
    assert.deepEqual(await readdir(path.join(root, 'ingest')), []);
    await rm(root, { recursive: true });
  });

  it('after another boot trusts no more of an ingest than what was synced', async () => {
    const root = await directory();
    const write = async (store: LocalContent, ref: string, text: string) => {
      const writer = await store.writer({ ref });
      await writer.write(Buffer.from(text));
      return writer;
    };
    const first = await LocalContent.open(root, 'first boot');
    // Closed, so synced; then written on and cut off.
    await (await write(first, 'both', 'synced')).close();
    await write(first, 'both', ' and not');
    await write(first, 'not', 'only written');
    await (await write(first, 'shorter', 'all of it')).close();
    const shorter = await first.writer({ ref: 'shorter' });
    await shorter.truncate(3);
    await shorter.write(Buffer.from(' else'));
    const offsets = async (store: LocalContent) =>
      Object.fromEntries((await store.listStatuses()).map(({ ref, offset }) => [ref, offset]));

    assert.deepEqual(await offsets(await LocalContent.open(root, 'first boot')), { both: 14, not: 12, shorter: 8 });
    const second = await LocalContent.open(root, 'second boot');
    assert.deepEqual(await offsets(second), { both: 6 });
    const writer = await write(second, 'both', ' again');
    const { digest } = await writer.commit();
    assert.equal(digest, `sha256:${createHash('sha256').update('synced again').digest('hex')}`);
    await rm(root, { recursive: true });
  });

  it('drops an ingest whose files a power cut has emptied', async () => {
    const root = await directory();
    const store = await LocalContent.open(root, 'boot');
    await (await store.writer({ ref: 'emptied' })).close();
    const dir = path.join(root, 'ingest', createHash('sha256').update('emptied').digest('hex'));
    await writeFile(path.join(dir, 'ref'), '');
    assert.deepEqual(await store.listStatuses(), []);
    await (await store.writer({ ref: 'emptied' })).close();
    assert.equal(await readFile(path.join(dir, 'ref'), 'utf8'), 'emptied');
    await rm(root, { recursive: true });
  });
});
