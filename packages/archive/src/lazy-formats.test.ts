import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { detectCompression } from './compression.ts';
import { chooseDecompressor } from './decompress.ts';
import { listTree, needsRoot, tempDirectory, unpack } from './testing/fixtures.ts';

/**
 * Layers made for lazy pulling, of which we want nothing but the files. Both were made of one small tree by the stargz-snapshotter's
 * library (v0.19.1): eStargz is a gzip member a file, with an index at the end that looks like another file; zstd:chunked is a zstd frame
 * a file, and has its index in skippable frames.
 */
const layers = {
  'estargz-layer.tar.gz': {
    compression: 'gzip',
    diffId: 'sha256:3f8d00b6619175b8c034f3b066529c31afc66edc42528d286cbdbd5058f15c6a',
    extra: ['.no.prefetch.landmark ', 'stargz.index.json '],
  },
  'zstd-chunked-layer.tar.zst': {
    compression: 'zstd',
    diffId: 'sha256:c66c3509b00c40cb3f14b0b0bd1759f77eae1432b357979fd7af05439e0b4f2b',
    extra: ['.no.prefetch.landmark '],
  },
} as const;

const tree = [
  'bin 40755 0:0',
  'bin/numbers 104755 0:0 size 8893 device 0:0',
  'etc 40755 0:0',
  'etc/empty 100644 0:0 size 0 device 0:0',
  'etc/hard 100644 0:0 size 4 device 0:0 = etc/one',
  'etc/link 120777 0:0 size 3 device 0:0 -> one',
  'etc/one 100644 0:0 size 4 device 0:0',
];

for (const [name, { compression, diffId, extra }] of Object.entries(layers)) {
  test(`${name} is a layer like any other`, { skip: needsRoot }, async (t) => {
    const blob = readFileSync(path.join(import.meta.dirname, 'testing', name));
    assert.equal(detectCompression(blob), compression);
    assert.ok(chooseDecompressor(compression));
    const root = path.join(tempDirectory(t), 'root');
    mkdirSync(root);
    const result = await unpack(blob, { root, kind: 'merged' });
    assert.equal(result.compression, compression);
    assert.equal(result.diffId, diffId);
    const found = listTree(root, { times: false });
    const isExtra = (line: string) => extra.some((start) => line.startsWith(start));
    assert.equal(found.filter(isExtra).length, extra.length);
    // Which of two names of a file comes first is the lister's affair.
    assert.deepEqual(
      found.filter((line) => !isExtra(line)).map((line) => line.replace(/ = .*/, '')),
      tree.map((line) => line.replace(/ = .*/, '')),
    );
  });
}
