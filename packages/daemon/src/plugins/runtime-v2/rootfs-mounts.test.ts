import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { alreadyExists, notFound, unimplemented } from '@gantry/api';
import { RuntimeInfoSchema } from '@gantry/api/gen/types/introspection_pb.js';
import type { Mount } from '@gantry/mount';
import type { Logger } from '../../core/log/logger.ts';
import type { ActivateOptions, MountManager } from '../../core/mounts/mount-manager.ts';
import { contextOf } from '../../core/request-context.ts';
import { RootfsMounts } from './rootfs-mounts.ts';

const ctx = contextOf('ns');
const rootfs: Mount[] = [{ type: 'erofs', source: '/image', options: [] }];
const system: Mount[] = [{ type: 'overlay', source: 'overlay', options: [] }];
const errors: string[] = [];
const quiet = () => {};
const log: Logger = {
  trace: quiet,
  debug: quiet,
  info: quiet,
  warn: quiet,
  error: (text) => errors.push(text),
  with: () => log,
};

/** A manager that notes what it is asked; `failure` is what activation throws. */
function manager(failure?: Error) {
  const asked: { name: string; options: ActivateOptions | undefined }[] = [];
  const active = { name: 'c', active: [], system, labels: {} };
  const fake: MountManager = {
    async activate(_, name, __, options) {
      asked.push({ name, options });
      if (failure) throw failure;
      return active;
    },
    async deactivate() {
      throw failure ?? notFound('mount "c": not found');
    },
    info: async () => active,
    list: async () => [],
  };
  return { fake, asked };
}

test('a task’s mounts are activated under its name and kept by its container', async () => {
  const { fake, asked } = manager();
  const mounts = new RootfsMounts(fake, 5000, log);
  const own = { path: '/nowhere', own: true };
  assert.equal(await mounts.activate(ctx, 'c', rootfs, own), system);
  assert.deepEqual(asked, [
    { name: 'c', options: { labels: { 'containerd.io/gc.bref.container': 'c' }, allowMountTypes: [] } },
  ]);
  assert.deepEqual(await mounts.activate(ctx, 'c', [], own), []);
  await mounts.deactivate('ns', 'c');
  assert.deepEqual(errors, []);
});

test('nothing to do leaves the mounts as they are; what an earlier task left is used', async () => {
  const own = { path: '/nowhere', own: true };
  const plain = new RootfsMounts(manager(unimplemented('no')).fake, 5000, log);
  assert.equal(await plain.activate(ctx, 'c', rootfs, own), rootfs);
  const taken = new RootfsMounts(manager(alreadyExists('taken')).fake, 5000, log);
  assert.equal(await taken.activate(ctx, 'c', rootfs, own), system);
  const broken = new RootfsMounts(manager(new Error('broken')).fake, 5000, log);
  await assert.rejects(broken.activate(ctx, 'c', rootfs, own), /broken/);
  // A busy mount is the collector's: the task is gone all the same.
  await broken.deactivate('ns', 'c');
  assert.deepEqual(errors.splice(0), ['failed to deactivate mounts']);
});

test('a shim says once what it mounts itself', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'gantry-rootfs-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = (name: string) => path.join(directory, name);
  const annotations = { 'containerd.io/runtime-allow-mounts': 'erofs,format/*' };
  writeFileSync(file('info'), toBinary(RuntimeInfoSchema, create(RuntimeInfoSchema, { name: 'x', annotations })));
  const script = `#!/bin/sh\n[ "$1" = -info ] && echo asked >> ${file('log')} && cat ${file('info')}\n`;
  writeFileSync(file('shim'), script, { mode: 0o755 });
  const { fake, asked } = manager();
  const mounts = new RootfsMounts(fake, 10_000, log);
  const foreign = { path: file('shim'), own: false };
  await Promise.all([mounts.activate(ctx, 'a', rootfs, foreign), mounts.activate(ctx, 'b', rootfs, foreign)]);
  assert.deepEqual(
    asked.map(({ options }) => options?.allowMountTypes),
    [
      ['erofs', 'format/*'],
      ['erofs', 'format/*'],
    ],
  );
  assert.equal(readFileSync(file('log'), 'utf8'), 'asked\n');
  // One that does not answer mounts nothing itself.
  await mounts.activate(ctx, 'c', rootfs, { path: file('none'), own: false });
  assert.deepEqual(asked.at(-1)?.options?.allowMountTypes, []);
  assert.deepEqual(errors.splice(0), ['failed to load runtime info']);
});
