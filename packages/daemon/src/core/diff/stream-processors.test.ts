import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { create, fromBinary } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { Code, hasCode } from '@gantry/api';
import { nodeKeyPayloads } from './node-keys.ts';
import { layerEncoding } from './stream-processors.ts';

const tar = 'application/vnd.oci.image.layer.v1.tar';
const processor = (accepts: string[], returns: string, program = 'sh') => ({
  accepts,
  returns,
  path: program,
  args: ['-x'],
  env: ['A=b'],
});

test('what is built in: where the first bytes tell the compression, and where the type does', () => {
  const docker = 'application/vnd.docker.image.rootfs.diff.tar';
  for (const type of [tar, `${tar}+what`, `${docker}+what`, `${docker}.gzip+what`]) {
    assert.deepEqual(layerEncoding(type, {}), { processors: [], compression: 'none' }, type);
  }
  for (const type of [
    `${tar}+gzip`,
    `${tar}+zstd`,
    'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
    `${tar}+what+zstd`,
    docker,
    `${docker}.gzip`,
    'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    'application/vnd.docker.image.rootfs.diff.tar.zstd',
  ]) {
    assert.deepEqual(layerEncoding(type, {}), { processors: [] }, type);
  }
  for (const type of [`${tar}+encrypted`, `${tar}+gzip+encrypted`, 'application/octet-stream', '']) {
    assert.throws(
      () => layerEncoding(type, {}),
      (error) => hasCode(error, Code.Unimplemented) && /no processor for media-type/.test((error as Error).message),
    );
  }
});

test('programs are chained by media types, with the payload under their id', () => {
  const processors = {
    first: processor(['x/wrapped'], 'x/encrypted'),
    older: processor(['x/encrypted'], `${tar}+gzip`),
    newer: processor(['x/other', 'x/encrypted'], `${tar}+gzip`),
  };
  const any = create(AnySchema, { typeUrl: 'x/payload', value: Buffer.from('p') });
  const { processors: steps, compression } = layerEncoding('x/wrapped', processors, { newer: any });
  assert.equal(compression, undefined);
  assert.deepEqual(
    steps?.map(({ id, mediaType, args, env }) => ({ id, mediaType, args, env })),
    [
      { id: 'first', mediaType: 'x/wrapped', args: ['-x'], env: ['A=b'] },
      { id: 'newer', mediaType: 'x/encrypted', args: ['-x'], env: ['A=b'] },
    ],
  );
  assert.ok(path.isAbsolute(steps![0]!.file));
  assert.equal(steps![0]!.payload, undefined);
  assert.equal(fromBinary(AnySchema, steps![1]!.payload!).typeUrl, 'x/payload');
});

test('a program comes before what is built in, and a plain tar is the end', () => {
  const processors = { own: processor([`${tar}+gzip`, tar], tar) };
  assert.equal(layerEncoding(`${tar}+gzip`, processors).compression, 'none');
  assert.equal(layerEncoding(tar, processors).processors?.length, 1);
});

test('circles, missing programs and those that others may change are refused', (t) => {
  const circle = { a: processor(['x/a'], 'x/b'), b: processor(['x/b'], 'x/a') };
  assert.throws(() => layerEncoding('x/a', circle), /more than 16 in a row/);
  assert.throws(
    () => layerEncoding('x/a', { a: processor(['x/a'], tar, 'no-such-program-anywhere') }),
    /failed to get stream processor for x\/a: exec: "no-such-program-anywhere": executable file not found in \$PATH/,
  );
  assert.throws(
    () => layerEncoding('x/a', { a: processor(['x/a'], tar, '/nonexistent/program') }),
    /"\/nonexistent\/program"/,
  );
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-processors-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const program = path.join(directory, 'program');
  writeFileSync(program, '#!/bin/sh\n');
  chmodSync(program, 0o757);
  assert.throws(
    () => layerEncoding('x/a', { a: processor(['x/a'], tar, program) }),
    (error) => hasCode(error, Code.PermissionDenied) && /others may write to it/.test((error as Error).message),
  );
});

test('the decoder of encrypted layers is told the descriptor', () => {
  const layer = {
    digest: `sha256:${'a'.repeat(64)}`,
    size: 5,
    annotations: { 'org.opencontainers.image.enc.keys.jwe': 'k' },
  };
  assert.deepEqual(nodeKeyPayloads({ ...layer, mediaType: `${tar}+gzip` }), {});
  const payloads = nodeKeyPayloads({ ...layer, mediaType: `${tar}+gzip+encrypted` });
  const { typeUrl, value } = payloads['io.containerd.ocicrypt.decoder.v1.tar.gzip']!;
  assert.equal(typeUrl, 'io.containerd.ocicrypt.v1.Payload');
  assert.deepEqual(JSON.parse(Buffer.from(value).toString()), {
    DecryptConfig: { Parameters: null },
    Descriptor: { mediaType: `${tar}+gzip+encrypted`, ...layer },
  });
});
