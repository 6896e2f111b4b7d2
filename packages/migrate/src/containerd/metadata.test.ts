import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Code } from '@gantry/api';
import { BoltFile } from '../bolt/bolt-file.ts';
import { elements, leaf, madeFile, type Tree } from '../bolt/made-file.ts';
import { readMetadata } from './metadata.ts';
import type { ContainerdMetadata } from './records.ts';
import { readSnapshotterMetadata } from './snapshotter-metadata.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-metadata-'));
after(() => rmSync(folder, { recursive: true }));

function made(tree: Tree): BoltFile {
  const file = path.join(folder, 'made.db');
  writeFileSync(file, madeFile([leaf(elements(tree), 3)]));
  return new BoltFile(file);
}

function read(tree: Tree): ContainerdMetadata {
  using file = made(tree);
  return readMetadata(file);
}

/** A second before 1970 and a nanosecond, in the zone of Berlin. */
const time = Buffer.from('010000000e7791f6ff00000001003c', 'hex');
const refused = (message: RegExp) => ({ code: Code.FailedPrecondition, message });

test('sandboxes are found in v1 and beside it', () => {
  const pod = { sandboxer: 'shim', createdat: time, labels: { a: 'b' } };
  const { namespaces } = read({
    v1: { both: { sandboxes: { inside: pod } }, empty: { labels: {} }, version: '\x08' },
    both: { sandboxes: { outside: pod } },
    only: { sandboxes: { alone: pod } },
    unrelated: { something: {} },
  });
  assert.deepEqual(
    namespaces.map(({ name, sandboxes }) => [name, sandboxes.map(({ id }) => id)]),
    [
      ['both', ['inside', 'outside']],
      ['empty', []],
      ['only', ['alone']],
    ],
  );
  const [first] = namespaces[0]!.sandboxes;
  assert.deepEqual(first!.createdAt, { seconds: -1n, nanos: 1 });
  assert.deepEqual([first!.sandboxer, first!.labels, first!.updatedAt], ['shim', { a: 'b' }, undefined]);
});

test('labels may have any name', () => {
  const { namespaces } = read({ v1: { one: { labels: { constructor: 'a', ['__proto__']: 'b' } } } });
  assert.deepEqual(Object.entries(namespaces[0]!.labels), [
    ['__proto__', 'b'],
    ['constructor', 'a'],
  ]);
});

test('a file of something else, and one that is newer, are refused', () => {
  assert.throws(() => read({ other: { a: 'b' } }), refused(/no metadata of containerd/));
  assert.throws(() => read({ v1: { version: '\x0a' } }), refused(/version 5; up to 4 is understood/));
});

test('a value that is not what it should be is named', () => {
  const container = (fields: Tree) => ({ v1: { ns: { containers: { box: fields } }, version: '\x08' } });
  const where = 'namespace ns: container box: ';
  const bad = (hex: string) => Buffer.from(hex, 'hex');
  assert.throws(
    () => read(container({ createdat: bad('0300') })),
    refused(new RegExp(`${where}createdat: not a time: 0300`)),
  );
  assert.throws(() => read(container({ createdat: bad('010000000e7791f6ffff000000003c') })), refused(/not a time/));
  assert.throws(
    () => read(container({ spec: bad('0aff') })),
    refused(new RegExp(`${where}spec: not a packed message`)),
  );
  assert.throws(() => read(container({ image: bad('ff') })), refused(new RegExp(`${where}image: not UTF-8`)));
  assert.throws(() => read(container({ labels: { l: bad('c3') } })), refused(/labels: l: not UTF-8/));
  const blob = (size: Buffer) => ({ v1: { ns: { content: { blob: { 'sha256:a': { size } } } } } });
  assert.throws(() => read(blob(bad('ffffffffffffffffffffff01'))), refused(/blob sha256:a: size: not a number/));
  assert.throws(() => read(blob(bad('80'))), refused(/not a number/));
  assert.throws(() => read({ v1: { ns: { images: { one: {} } } } }), refused(/image one: it has no target/));
});

test('ingests, and leases with all they can hold', () => {
  const { namespaces } = read({
    v1: {
      ns: {
        content: { ingests: { 'layer-1': { ref: 'ns/1/layer-1', expected: 'sha256:a', expireat: time } } },
        leases: {
          lease: {
            createdat: time,
            content: { 'sha256:a': '' },
            images: { busybox: '' },
            ingests: { 'layer-1': '' },
            labels: { a: 'b' },
            snapshots: { native: { one: '' }, overlayfs: { one: '', two: '' } },
          },
        },
      },
    },
  });
  assert.deepEqual(namespaces[0]!.ingests, [
    { ref: 'layer-1', backendRef: 'ns/1/layer-1', expected: 'sha256:a', expireAt: { seconds: -1n, nanos: 1 } },
  ]);
  assert.deepEqual(namespaces[0]!.leases[0]!.resources, [
    { type: 'content', id: 'sha256:a' },
    { type: 'images', id: 'busybox' },
    { type: 'ingests', id: 'layer-1' },
    { type: 'snapshots/native', id: 'one' },
    { type: 'snapshots/overlayfs', id: 'one' },
    { type: 'snapshots/overlayfs', id: 'two' },
  ]);
});

test('the size of a snapshot is read, and one of no kind refused', () => {
  using sound = made({
    v1: { snapshots: { 'a/1/b': { id: '\x01', kind: '\x02', size: Buffer.from('808001', 'hex') } } },
  });
  assert.equal(readSnapshotterMetadata(sound).get('a/1/b')?.size, 8192n);
  for (const fields of [{ id: '\x01', kind: '\x09' }, { kind: '\x02' }]) {
    using file = made({ v1: { snapshots: { one: fields } } });
    assert.throws(() => readSnapshotterMetadata(file), refused(/snapshot one: its id or kind cannot be read/));
  }
});
