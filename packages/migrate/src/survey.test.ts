import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { Code } from '@gantry/api';
import { elements, leaf, madeFile, type Tree } from './bolt/made-file.ts';
import { reportOf, reportText } from './report.ts';
import { type Survey, survey } from './survey.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-survey-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(file: string, tree: Tree): void {
  const to = path.join(folder, file);
  mkdirSync(path.dirname(to), { recursive: true });
  writeFileSync(to, madeFile([leaf(elements(tree), 3)]));
}

function look(namespaces: Tree): Survey {
  write('root/io.containerd.metadata.v1.bolt/meta.db', { v1: namespaces });
  return survey({
    root: path.join(folder, 'root'),
    state: path.join(folder, 'state'),
    snapshotters: ['overlayfs', 'native'],
  });
}

const report = (found: Survey): string =>
  reportText(
    reportOf(
      {
        survey: found,
        snapshots: new Map(),
        tasks: { taken: [], sandboxes: [], problems: [] },
        content: undefined,
        problems: [...found.problems],
      },
      [],
    ),
  );

test('without metadata there is nothing to survey', () => {
  const there = { root: folder, state: folder, snapshotters: [] };
  assert.throws(() => survey(there), { code: Code.NotFound, message: /meta\.db: no such file/ });
});

test('names that lead out of the root are not followed', () => {
  // What such names would reach, if they were taken for paths.
  write('metadata.db', { v1: { snapshots: {} } });
  writeFileSync(path.join(folder, 'outside'), '1234');
  const { problems, stored } = look({
    ns: {
      content: { blob: { 'sha256:../../../../outside': { size: '\x08' } } },
      snapshots: { 'x/../../..': { key: { name: 'ns/1/key' } } },
    },
  });
  assert.equal(stored.size, 0);
  assert.deepEqual(problems, [
    'namespace ns: blob sha256:../../../../outside: not a digest',
    'namespace ns: snapshot key of x/../../..: what that snapshotter keeps cannot be read',
    'snapshotter x/../../..: there is none of that name here',
  ]);
});

test('a snapshot that its snapshotter does not know, or keeps nowhere, is told', () => {
  const overlayfs = 'root/io.containerd.snapshotter.v1.overlayfs';
  const snapshot = (id: string) => ({ id, kind: '\x02' });
  write(`${overlayfs}/metadata.db`, {
    v1: { snapshots: { 'ns/1/here': snapshot('\x01'), 'ns/2/link': snapshot('\x02') } },
  });
  mkdirSync(path.join(folder, overlayfs, 'snapshots/1'), { recursive: true });
  symlinkSync('1', path.join(folder, overlayfs, 'snapshots/2'));
  const { problems } = look({
    ns: {
      snapshots: {
        overlayfs: { gone: { name: 'ns/3/gone' }, here: { name: 'ns/1/here' }, link: { name: 'ns/2/link' } },
      },
    },
  });
  assert.deepEqual(problems, [
    'namespace ns: snapshot gone of overlayfs: the snapshotter does not know it',
    'namespace ns: snapshot link of overlayfs: its directory is missing',
  ]);
});

test('a task runs if there is a process of its number', () => {
  const bundle = (id: string, pid: string) => {
    const at = path.join(folder, 'state/io.containerd.runtime.v2.task/ns', id);
    mkdirSync(at, { recursive: true });
    writeFileSync(path.join(at, 'init.pid'), pid);
  };
  bundle('alive', String(process.pid));
  bundle('ended', '4194305');
  bundle('nonsense', '../1');
  mkdirSync(path.join(folder, 'state/io.containerd.runtime.v2.task/ns/new'));
  const found = look({ ns: { labels: {} } });
  assert.deepEqual(
    found.tasks.map(({ id, pid }) => [id, pid]),
    [
      ['alive', process.pid],
      ['ended', undefined],
      ['new', undefined],
      ['nonsense', undefined],
    ],
  );
  const text = report(found);
  assert.match(text, /^ns +0 +0 +1 +0 +0 +0 +0 +0$/m);
  assert.match(text, /^ns +ended +not running {2}not taken$/m);
  assert.match(text, /No problems found\.\n$/);
});

test('a report moves no cursor', () => {
  const text = report(look({ 'a\x1b[2J\nb': { images: { 'c\x07': { target: { digest: 'sha256:a' } } } } }));
  assert.ok(text.includes('a\\u{1b}[2J\\u{a}b '), text);
  assert.ok(text.includes('image c\\u{7}: its target sha256:a is not there'), text);
});
