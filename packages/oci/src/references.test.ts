import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  digestOfReference,
  familiarDockerReference,
  formatReference,
  hostOf,
  normalizeDockerReference,
  ociReferenceName,
  parseReference,
  repositoryOf,
  tagOf,
} from './references.ts';

const digest = `sha256:${'a'.repeat(64)}`;

test('takes a reference apart and puts it together', () => {
  const cases: [string, string, string, string, string][] = [
    // text, host, repository, tag, digest
    ['docker.io/library/busybox:latest', 'docker.io', 'library/busybox', 'latest', ''],
    [`docker.io/library/busybox:latest@${digest}`, 'docker.io', 'library/busybox', 'latest', digest],
    [`localhost:5000/a/b@${digest}`, 'localhost:5000', 'a/b', '', digest],
    ['[::1]:5000/a:1', '[::1]:5000', 'a', '1', ''],
    ['localhost:5000/a', 'localhost:5000', 'a', '', ''],
    ['busybox', 'busybox', '', '', ''],
  ];
  for (const [text, host, repository, tag, wanted] of cases) {
    const reference = parseReference(text);
    assert.equal(hostOf(reference), host);
    assert.equal(repositoryOf(reference), repository);
    assert.equal(tagOf(reference), tag);
    assert.equal(digestOfReference(reference), wanted);
    assert.equal(formatReference(reference), text);
  }
});

test('refuses what is no reference', () => {
  for (const text of ['https://a/b:1', '', '/a:1', 'a b/c', 'a\n/b', 'busybox:latest']) {
    assert.throws(() => parseReference(text), /invalid reference|hostname required/, text);
  }
});

test('Docker names in full and in short', () => {
  const cases: [string, string][] = [
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1', 'docker.io/library/busybox:1'],
    ['a/b', 'docker.io/a/b:latest'],
    ['localhost/a', 'localhost/a:latest'],
    ['host:5000/a:1', 'host:5000/a:1'],
    ['index.docker.io/a/b', 'docker.io/a/b:latest'],
    [`busybox:1@${digest}`, `docker.io/library/busybox@${digest}`],
  ];
  for (const [short, full] of cases) assert.equal(normalizeDockerReference(short), full);
  for (const bad of ['', 'UPPER', 'a:', 'a@sha256:12', 'a'.repeat(64), 'a//b']) {
    assert.throws(() => normalizeDockerReference(bad), /invalid reference format/, bad);
  }
  assert.equal(familiarDockerReference('docker.io/library/busybox:1'), 'busybox:1');
  assert.equal(familiarDockerReference('docker.io/a/b:1'), 'a/b:1');
  assert.equal(familiarDockerReference('quay.io/a/b'), 'quay.io/a/b:latest');
  assert.equal(familiarDockerReference('plain:1'), 'plain:1');
  assert.equal(familiarDockerReference('import-2026-01-02'), 'import-2026-01-02:latest');
  const byDigest = `@sha256:${'a'.repeat(64)}`;
  assert.equal(familiarDockerReference(`docker.io/a/b${byDigest}`), `a/b${byDigest}`);
  assert.equal(familiarDockerReference(`localhost:5000/b:1${byDigest}`), `localhost:5000/b:1${byDigest}`);
  assert.throws(() => familiarDockerReference('Not/A name'), { name: 'StatusError' });
});

test('the name in an archive is the tag, or all of it', () => {
  assert.equal(ociReferenceName('docker.io/library/busybox:1'), '1');
  assert.equal(ociReferenceName(`docker.io/library/busybox@${digest}`), `docker.io/library/busybox@${digest}`);
  assert.equal(ociReferenceName('not a reference'), 'not a reference');
});
