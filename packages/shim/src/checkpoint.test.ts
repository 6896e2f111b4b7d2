import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode, packAny } from '@gantry/api';
import { CheckpointOptionsSchema, OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { checkpointArguments, readCheckpointOptions, restoreArguments, writeCheckpoint } from './checkpoint.ts';
import { RuntimeError } from './oci-runtime.ts';

test('options become flags of the runtime', () => {
  const plain = readCheckpointOptions(undefined);
  const places = ['checkpoint', '--image-path', '/i', '--work-path', '/w'];
  assert.deepEqual(checkpointArguments(plain, '/i', '/w'), [...places, '--leave-running']);
  const all = create(CheckpointOptionsSchema, {
    exit: true,
    openTcp: true,
    externalUnixSockets: true,
    terminal: true,
    fileLocks: true,
    emptyNamespaces: ['network', 'ipc'],
    cgroupsMode: 'soft',
  });
  assert.deepEqual(checkpointArguments(readCheckpointOptions(packAny(CheckpointOptionsSchema, all)), '/i', '/w'), [
    ...places,
    ...['--tcp-established', '--ext-unix-sk', '--shell-job', '--file-locks'],
    ...['--empty-ns', 'network', '--empty-ns', 'ipc', '--manage-cgroups-mode', 'soft'],
  ]);
  assert.throws(
    () => readCheckpointOptions(packAny(OptionsSchema, {})),
    (error) => hasCode(error, Code.InvalidArgument),
  );
});

test('a restore says where everything is', () => {
  assert.deepEqual(restoreArguments({ imagePath: '/i', workPath: '/w', noPivotRoot: true }, '/b', '/b/init.pid'), [
    ...['restore', '--bundle', '/b', '--image-path', '/i', '--work-path', '/w'],
    ...['--detach', '--no-subreaper', '--pid-file', '/b/init.pid', '--no-pivot'],
  ]);
});

test('CRIU’s log of a failure stays in the bundle, and its work directory does not', async () => {
  const bundle = mkdtempSync(path.join(tmpdir(), 'gantry-checkpoint-'));
  try {
    let work = '';
    const failing = writeCheckpoint(bundle, '/images', readCheckpointOptions(undefined), async (args) => {
      work = args[args.indexOf('--work-path') + 1]!;
      writeFileSync(path.join(work, 'dump.log'), 'Error: too strange a socket');
      throw new RuntimeError('criu failed: type NOTIFY errno 0\nlog file: gone', 1);
    });
    const kept = path.join(bundle, 'criu-dump.log');
    await assert.rejects(failing, {
      message: `OCI runtime checkpoint failed: criu failed: type NOTIFY errno 0 path= ${kept}`,
    });
    assert.match(readFileSync(kept, 'utf8'), /too strange/);
    assert.throws(() => readFileSync(path.join(work, 'dump.log')), /ENOENT/);
  } finally {
    rmSync(bundle, { recursive: true });
  }
});
