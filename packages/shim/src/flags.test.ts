import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFlags } from './flags.ts';

test('reads what containerd passes', () => {
  const flags = parseFlags(
    '-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a1 -bundle /b -debug delete'.split(
      ' ',
    ),
  );
  assert.deepEqual(
    [flags.namespace, flags.address, flags.publishBinary, flags.id, flags.bundle, flags.debug, flags.action],
    ['k8s.io', '/run/c.sock', '/usr/bin/containerd', 'a1', '/b', true, 'delete'],
  );
});

test('reads the forms of the Go flag package', () => {
  const flags = parseFlags(['--id=x=y', '-debug=false', '--debug-socket', '/d', '-socket=/s', 'start', '-id', 'z']);
  assert.deepEqual([flags.id, flags.debug, flags.socket, flags.action], ['x=y', false, '/s', 'start']);
  assert.equal(parseFlags(['-v']).version, true);
  assert.equal(parseFlags(['-info']).info, true);
});

test('refuses what it does not know', () => {
  assert.throws(() => parseFlags(['-nope', 'x']), /not defined: -nope/);
  assert.throws(() => parseFlags(['-id']), /needs an argument: -id/);
});
