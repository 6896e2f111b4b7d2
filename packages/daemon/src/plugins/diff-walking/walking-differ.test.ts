import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { alreadyExists, notFound, now } from '@gantry/api';
import { WorkerPool } from '@gantry/archive';
import type { ContentInfo, ContentReader, ContentStore, ContentWriter } from '../../core/content/content-store.ts';
import { differContract } from '../../core/diff/differ-contract.ts';
import type { Logger } from '../../core/log/logger.ts';
import { directTarget, directUpper } from './apply-target.ts';
import { WalkingDiffer } from './walking-differ.ts';

/** A content store of a few blobs; with a directory, readers have a path as those of the local store do. */
function memoryContent(directory?: string): ContentStore {
  const blobs = new Map<string, { bytes: Buffer; info: ContentInfo }>();
  const ingests = new Map<string, Buffer[]>();
  const find = (digest: string) => {
    const blob = blobs.get(digest);
    if (!blob) throw notFound(`content digest ${digest}: not found`);
    return blob;
  };
  const store: Partial<ContentStore> = {
    info: async (_, digest) => find(digest).info,
    async update(_, { digest, labels }, paths) {
      const { info } = find(digest);
      for (const name of paths) {
        if (name === 'labels') info.labels = { ...labels };
        else info.labels[name.slice('labels.'.length)] = labels[name.slice('labels.'.length)]!;
      }
      return info;
    },
    listStatuses: async () => [...ingests.keys()].map((ref) => ({ ref }) as never),
    async abort(_, ref) {
      if (!ingests.delete(ref)) throw notFound(`ingest ${ref}: not found`);
    },
    async reader(_, digest): Promise<ContentReader> {
      const { bytes } = find(digest);
      const file = directory && path.join(directory, digest);
      if (file) await writeFile(file, bytes);
      return {
        size: bytes.length,
        path: file,
        read: async (offset, length) => bytes.subarray(offset, offset + length),
        close: async () => {},
        [Symbol.asyncDispose]: async () => {},
      };
    },
    async writer(ctx, { ref }): Promise<ContentWriter> {
      assert.equal(ctx.lease, 'a-lease', 'the lease of the caller holds what is written');
      const chunks = ingests.get(ref) ?? [];
      ingests.set(ref, chunks);
      const writer: Partial<ContentWriter> = {
        async write(chunk) {
          chunks.push(Buffer.from(chunk));
        },
        async truncate() {
          chunks.length = 0;
        },
        async commit({ size, expected, labels = {} } = {}) {
          const bytes = Buffer.concat(chunks);
          const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
          if (size !== undefined) assert.equal(bytes.length, size);
          if (expected !== undefined) assert.equal(digest, expected);
          ingests.delete(ref);
          if (blobs.has(digest)) throw alreadyExists(`content ${digest}: already exists`);
          const info = { digest, size: bytes.length, createdAt: now(), updatedAt: now(), labels: { ...labels } };
          blobs.set(digest, { bytes, info });
          return info;
        },
        async close() {},
      };
      return writer as ContentWriter;
    },
  };
  return store as ContentStore;
}

for (const kind of ['local', 'remote']) {
  differContract(`walking over a ${kind} store`, async () => {
    const directory = await mkdtemp(path.join(tmpdir(), 'gantry-differ-content-'));
    const content = memoryContent(kind === 'local' ? directory : undefined);
    const pool = new WorkerPool();
    const log = { warn() {} } as unknown as Logger;
    return {
      differ: new WalkingDiffer({ content, pool, temp: path.join(directory, 'temp'), log }),
      content,
      async close() {
        await pool.close();
        await rm(directory, { recursive: true });
      },
    };
  });
}

const overlayOptions = (...options: string[]) => [{ type: 'overlay', source: 'overlay', options }];

test('mounts are bypassed only where the directory behind them is certain', () => {
  const rw = { type: 'bind', source: '/a', options: ['rbind', 'rw'] };
  assert.deepEqual(directTarget([rw]), { root: '/a', kind: 'merged' });
  assert.equal(directTarget([{ ...rw, options: ['rbind', 'ro'] }]), undefined);
  assert.equal(directTarget([{ ...rw, target: 'sub' }]), undefined);
  assert.equal(directTarget([rw, rw]), undefined);
  assert.equal(directTarget([]), undefined);
  assert.deepEqual(
    directTarget(overlayOptions('index=off', 'lowerdir=/b:/c', 'upperdir=/u', 'workdir=/w', 'userxattr')),
    {
      root: '/u',
      kind: 'overlay',
      parents: ['/b', '/c'],
      userXattr: true,
    },
  );
  assert.equal(directTarget(overlayOptions('lowerdir=/b:/c')), undefined);
  assert.equal(directTarget(overlayOptions('lowerdir=/b\\:x', 'upperdir=/u')), undefined);
  assert.equal(directTarget(overlayOptions('lowerdir=/b::/data', 'upperdir=/u')), undefined);
});

test('an upper directory is the difference only from exactly what lies below it', () => {
  const upper = overlayOptions('lowerdir=/b:/c', 'upperdir=/u', 'workdir=/w');
  assert.equal(directUpper(overlayOptions('lowerdir=/b:/c'), upper), '/u');
  assert.equal(directUpper(overlayOptions('upperdir=/b', 'lowerdir=/c', 'workdir=/v'), upper), '/u');
  assert.equal(directUpper(overlayOptions('lowerdir=/c'), upper), undefined);
  assert.equal(directUpper([], upper), undefined);
  const one = overlayOptions('lowerdir=/b', 'upperdir=/u', 'workdir=/w');
  assert.equal(directUpper([{ type: 'bind', source: '/b', options: ['ro'] }], one), '/u');
  assert.equal(directUpper([{ type: 'bind', source: '/x', options: ['ro'] }], one), undefined);
});
