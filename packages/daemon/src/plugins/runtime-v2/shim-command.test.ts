// Shims made of a few lines of shell, which write down how they were called.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { Code, hasCode, now, toTimestamp } from '@gantry/api';
import { BootstrapParamsSchema } from '@gantry/api/gen/runtime/bootstrap/v1/bootstrap_pb.js';
import { DeleteResponseSchema } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import type { Bundle } from './bundle.ts';
import { deleteByShim, type ShimEnvironment, startShim } from './shim-command.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'gantry-shim-command-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const bundle: Bundle = { id: 'web', namespace: 'ns', path: path.join(directory, 'bundle'), work: '' };
mkdirSync(bundle.path);
const environment: ShimEnvironment = {
  address: '/run/g.sock',
  ttrpcAddress: '/run/g.sock.ttrpc',
  publishBinary: '/bin/gantryd',
  logLevel: 'debug',
  extra: ['SETTING=from=config', 'without a value'],
  socketDir: '/run/gantry/s',
};
const options = create(AnySchema, { typeUrl: 'containerd.runc.v1.Options', value: Buffer.from('x') });

/** A program that notes arguments, environment, directory and input, then does what the lines say. */
function shim(name: string, lines: string): string {
  const file = path.join(directory, name);
  const notes = `echo "$@" >'${file}.args'; env >'${file}.env'; pwd >'${file}.cwd'; cat >'${file}.stdin'\n`;
  writeFileSync(file, `#!/bin/sh\n${notes}echo x >>'${file}.calls'\n${lines}\n`, { mode: 0o755 });
  return file;
}

function note(file: string, what: string): string {
  return readFileSync(`${file}.${what}`, 'utf8').trim();
}

const flags = '-namespace ns -address /run/g.sock -publish-binary /bin/gantryd -id web -debug';

test('start gives flags, environment, directory and parameters, and reads the answer', async () => {
  const file = shim('recent', `printf '{"version":3,"address":"unix:///s","protocol":"grpc"}'; echo noise >&2`);
  const bootstrap = await startShim(file, bundle, options, environment, 10_000);
  assert.deepEqual(bootstrap, { version: 3, address: 'unix:///s', protocol: 'grpc' });
  assert.equal(note(file, 'args'), `${flags} start`);
  assert.equal(note(file, 'cwd'), bundle.path);
  const variables = note(file, 'env').split('\n');
  for (const line of [
    'TTRPC_ADDRESS=/run/g.sock.ttrpc',
    'GRPC_ADDRESS=/run/g.sock',
    'NAMESPACE=ns',
    'MAX_SHIM_VERSION=2',
    'GOMAXPROCS=2',
    'SETTING=from=config',
  ])
    assert.ok(variables.includes(line), line);
  const { instanceId, extensions } = fromBinary(BootstrapParamsSchema, readFileSync(`${file}.stdin`));
  assert.equal(instanceId, 'web');
  assert.equal(extensions[0]?.value?.typeUrl, options.typeUrl);
});

test('a shim that reads options only is given those, and is not asked twice', async () => {
  // As 1.6 does: the first field of what it reads must be a type it knows.
  const file = shim(
    'old',
    `if grep -q Options '${path.join(directory, 'old')}.stdin' && ! grep -q g.sock '${path.join(directory, 'old')}.stdin'
then printf unix:///s; else echo 'io.containerd.runc.v2: type with url web: not found' >&2; exit 1; fi`,
  );
  for (let time = 0; time < 2; time++) {
    const bootstrap = await startShim(file, bundle, options, environment, 10_000);
    assert.deepEqual(bootstrap, { version: 2, address: 'unix:///s', protocol: 'ttrpc' });
    assert.deepEqual(readFileSync(`${file}.stdin`), Buffer.from(toBinary(AnySchema, options)));
  }
  assert.equal(note(file, 'calls').split('\n').length, 3);
  // Another program in its place is asked anew.
  const changed = shim('old', 'printf unix:///t');
  await startShim(changed, bundle, options, environment, 10_000);
  assert.equal(fromBinary(BootstrapParamsSchema, readFileSync(`${file}.stdin`)).instanceId, 'web');
});

test('what goes wrong is told as the shim told it, and none is waited for without end', async () => {
  const failing = shim('failing', 'echo no luck >&2; exit 3');
  await assert.rejects(startShim(failing, bundle, undefined, environment, 10_000), /no luck: exit status 3/);
  assert.equal(note(failing, 'calls'), 'x');
  const hanging = shim('hanging', 'exec sleep 60');
  await assert.rejects(startShim(hanging, bundle, undefined, environment, 300), (error) =>
    hasCode(error, Code.DeadlineExceeded),
  );
  await assert.rejects(startShim('/no/such/shim', bundle, undefined, environment, 300), /\/no\/such\/shim/);
});

test('delete gives the bundle too, and reads how the container ended', async () => {
  const answer = create(DeleteResponseSchema, { pid: 7, exitStatus: 137, exitedAt: toTimestamp(now()) });
  writeFileSync(path.join(directory, 'answer'), toBinary(DeleteResponseSchema, answer));
  const file = shim('deleting', `cat '${path.join(directory, 'answer')}'`);
  const exit = await deleteByShim(file, bundle, environment, 10_000);
  assert.equal(exit.pid, 7);
  assert.equal(exit.exitStatus, 137);
  assert.ok(exit.exitedAt);
  assert.equal(note(file, 'args'), `${flags} -bundle ${bundle.path} delete`);
  assert.equal(note(file, 'cwd'), bundle.path);
  assert.equal(note(file, 'stdin'), '');
});
