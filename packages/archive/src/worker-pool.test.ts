import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import zlib from 'node:zlib';
import { Code, hasCode } from '@gantry/api';
import type { ApplyLayerResult } from './apply-layer.ts';
import { chunksFromPort, pumpToPort } from './port-chunks.ts';
import { makeTar, tempDirectory } from './testing/fixtures.ts';
import { WorkerPool, type WorkerPoolOptions } from './worker-pool.ts';

const archive = makeTar(
  { path: 'a/' },
  { path: 'a/b', content: Buffer.alloc(3 << 20, 'abc') },
  { path: 'c', content: 'd' },
);

function poolOf(t: { after(fn: () => Promise<void>): void }, options?: WorkerPoolOptions): WorkerPool {
  const pool = new WorkerPool(options);
  t.after(() => pool.close());
  return pool;
}

function setUp(t: { after(fn: () => void): void }, blob: Buffer = archive) {
  const directory = tempDirectory(t);
  const root = path.join(directory, 'root');
  mkdirSync(root);
  const file = path.join(directory, 'blob');
  writeFileSync(file, blob);
  return { root, file, target: { root, kind: 'merged' as const } };
}

const compressed: Record<string, Buffer> = {
  gzip: zlib.gzipSync(archive),
  'gzip of several members': Buffer.concat([
    zlib.gzipSync(archive.subarray(0, 1000)),
    zlib.gzipSync(archive.subarray(1000)),
  ]),
  zstd: zlib.zstdCompressSync(archive),
  'zstd of several frames': Buffer.concat([
    zlib.zstdCompressSync(archive.subarray(0, 1000)),
    Buffer.from('502a4d180400000001020304', 'hex'),
    zlib.zstdCompressSync(archive.subarray(1000)),
  ]),
  'zstd that starts with a skippable frame': Buffer.concat([
    Buffer.from('502a4d180400000001020304', 'hex'),
    zlib.zstdCompressSync(archive),
  ]),
  'no compression': archive,
};
for (const [what, blob] of Object.entries(compressed)) {
  test(`unpacks ${what}`, async (t) => {
    const { root, file, target } = setUp(t, blob);
    const pool = poolOf(t);
    const params = { source: { kind: 'file', path: file }, target, hashSource: true };
    const result = await pool.run<ApplyLayerResult>('apply-layer', params);
    assert.equal(result.size, archive.length);
    assert.equal(result.sourceSize, blob.length);
    assert.equal(readFileSync(path.join(root, 'a/b')).length, 3 << 20);
    const plain = await pool.run<{ digest: string }>('hash-file', { source: { kind: 'file', path: file } });
    assert.equal(plain.digest, result.sourceDigest);
    const inner = await pool.run<{ digest: string }>('hash-file', {
      source: { kind: 'file', path: file },
      uncompressed: true,
    });
    assert.equal(inner.digest, result.diffId);
  });
}

test('fails on blobs cut short or followed by rubbish', async (t) => {
  const pool = poolOf(t);
  const cases = [
    zlib.gzipSync(archive).subarray(0, -10),
    zlib.zstdCompressSync(archive).subarray(0, -10),
    Buffer.concat([zlib.gzipSync(archive), Buffer.from('rubbish')]),
    Buffer.concat([zlib.gzipSync(archive), Buffer.alloc(100)]),
    Buffer.concat([zlib.zstdCompressSync(archive), Buffer.from('rubbish')]),
    archive.subarray(0, 1 << 20),
  ];
  for (const blob of cases) {
    const { file, target } = setUp(t, blob);
    await assert.rejects(pool.run('apply-layer', { source: { kind: 'file', path: file }, target }));
  }
});

test('a layer that is larger than it may be is told with its code, across the thread', async (t) => {
  const { file, target } = setUp(t, zlib.gzipSync(archive));
  const params = { source: { kind: 'file', path: file }, target, maxSize: 1000 };
  await assert.rejects(poolOf(t).run('apply-layer', params), (error) => {
    assert.ok(hasCode(error, Code.ResourceExhausted));
    assert.equal((error as Error).message, 'layer is larger than 1000 bytes uncompressed');
    return true;
  });
});

test('unpacks a file that is still being written', async (t) => {
  const blob = zlib.gzipSync(archive);
  const { root, file, target } = setUp(t, Buffer.alloc(0));
  const job = poolOf(t).start<ApplyLayerResult>('apply-layer', { source: { kind: 'growing', path: file }, target });
  for (let at = 0; at < blob.length; at += 1000) {
    appendFileSync(file, blob.subarray(at, at + 1000));
    job.post({ available: Math.min(at + 1000, blob.length) });
    await sleep(1);
  }
  job.post({ end: true });
  assert.equal((await job.result).sourceSize, blob.length);
  assert.equal(readFileSync(path.join(root, 'c'), 'utf8'), 'd');
});

test('what is wrong in a file shows before its download ends', async (t) => {
  const { file, target } = setUp(t, zlib.gzipSync(Buffer.alloc(4096, 'not a tar')));
  const job = poolOf(t).start('apply-layer', { source: { kind: 'growing', path: file, available: 20 }, target });
  job.post({ available: readFileSync(file).length });
  await assert.rejects(job.result, { code: 'ETAR' });
});

test('a download that breaks fails the unpack with its reason', async (t) => {
  const { file, target } = setUp(t);
  const job = poolOf(t).start('apply-layer', { source: { kind: 'growing', path: file, available: 100 }, target });
  job.post({ error: 'connection lost' });
  await assert.rejects(job.result, /connection lost/);
});

test('bytes go through ports both ways, with flow control and failures', async (t) => {
  const { root, target } = setUp(t);
  const pool = poolOf(t);
  const pieces = async function* (end = archive.length) {
    for (let at = 0; at < end; at += 10_000) yield archive.subarray(at, Math.min(at + 10_000, end));
  };
  const inward = new MessageChannel();
  const job = pool.run<ApplyLayerResult>(
    'apply-layer',
    { source: { kind: 'port', port: inward.port2 }, target },
    { transfer: [inward.port2] },
  );
  await pumpToPort(pieces(), inward.port1);
  assert.equal((await job).size, archive.length);

  const outward = new MessageChannel();
  const diff = pool.run<{ size: number; uncompressedSize: number }>(
    'diff-layer',
    { upper: root, compression: 'none', target: { kind: 'port', port: outward.port2 } },
    { transfer: [outward.port2] },
  );
  let received = 0;
  for await (const chunk of chunksFromPort(outward.port1)) received += chunk.length;
  assert.equal(received, (await diff).size);

  const broken = new MessageChannel();
  const failing = async function* () {
    yield* pieces(20_000);
    throw new Error('source broke');
  };
  const failed = pool.run(
    'apply-layer',
    { source: { kind: 'port', port: broken.port2 }, target },
    { transfer: [broken.port2] },
  );
  failed.catch(() => {});
  await assert.rejects(pumpToPort(failing(), broken.port1), /source broke/);
  await assert.rejects(failed, /source broke/);
});

test('a job can be cancelled while it waits, and the worker goes on', async (t) => {
  const { file, target } = setUp(t);
  const pool = poolOf(t, { size: 1 });
  const controller = new AbortController();
  const waiting = pool.run(
    'apply-layer',
    { source: { kind: 'growing', path: file }, target },
    { signal: controller.signal },
  );
  controller.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(pool.run('hash-file', {}, { signal: controller.signal }), /enough/);
  await pool.run('hash-file', { source: { kind: 'file', path: file } });
  assert.equal(pool.workers, 1);
});

test('jobs share workers; a worker that dies fails its own jobs, and the next job gets a new one', async (t) => {
  const directory = tempDirectory(t);
  const entry = path.join(directory, 'worker.mjs');
  writeFileSync(
    entry,
    `import { parentPort, threadId } from 'node:worker_threads';
     parentPort.on('message', (m) => {
       if (m.job === 'die') process.exit(3);
       if (m.job === 'throw') throw new Error('boom');
       if (m.job === 'id') parentPort.postMessage({ kind: 'result', id: m.id, result: threadId });
     });`,
  );
  const pool = poolOf(t, { size: 2, url: new URL(`file://${entry}`) });
  const a = pool.run('hang', {});
  const b = pool.run('die', {});
  await assert.rejects(b, /archive worker died: exit code 3/);
  const other = await Promise.race([a.catch(() => 'failed'), sleep(50, 'still there')]);
  assert.equal(other, 'still there');
  await assert.rejects(pool.run('throw', {}), /archive worker died: boom/);
  assert.equal(typeof (await pool.run('id', {})), 'number');
  assert.ok(pool.workers <= 2);
  a.catch(() => {});
  await pool.close();
  await assert.rejects(a, /archive worker died/);
  await assert.rejects(pool.run('id', {}), /closed/);
});

test('idle workers end', async (t) => {
  const { file } = setUp(t);
  const pool = poolOf(t, { idleAfter: 20 });
  await pool.run('hash-file', { source: { kind: 'file', path: file } });
  const deadline = Date.now() + 5000;
  while (pool.workers > 0 && Date.now() < deadline) await sleep(5);
  assert.equal(pool.workers, 0);
  await pool.run('hash-file', { source: { kind: 'file', path: file } });
});

test('an unknown job is an error', async (t) => {
  await assert.rejects(poolOf(t).run('no-such', {}), /no job no-such/);
});
