import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, openSync, readdirSync, rmSync, statfsSync, truncateSync, writeSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Code, hasCode, resourceExhausted } from '@gantry/api';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { eventually, run } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { checkWhole } from './after-restart.ts';
import { type Connection, connect, gather } from './connection.ts';
import { buildArchivedImage, buildKnownImages, type KnownImage } from './fault-images.ts';
import { Ledger } from './ledger.ts';
import { Random } from './random.ts';
import { endProcesses } from './survey.ts';
import { pullImage, snapshotter, type World, writeBlob } from './workload.ts';

/**
 * A full disk: every call that needs space says so (RESOURCE_EXHAUSTED, "no space left on device"), leaves nothing behind, and works
 * again when there is space. The daemon goes on all the while. GANTRY_FULL_DISK=tmpfs has it on another filesystem than ext4.
 */
const skip = process.getuid?.() !== 0 && 'mounts need root';
const kind = process.env['GANTRY_FULL_DISK'] ?? 'ext4';
const full = (error: unknown): boolean =>
  hasCode(error, Code.ResourceExhausted) && /no space left on device/i.test(error.message);

describe('a full disk', { skip }, () => {
  const temp = makeTempDir('full');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const filler = path.join(daemon.root, 'filler');
  let registry: TestRegistry;
  let world: World;
  let connection: Connection;
  let archived: KnownImage & { archive: string };

  before(async () => {
    execFileSync('mkdir', ['-p', daemon.root]);
    if (kind === 'tmpfs') execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'full', daemon.root]);
    else {
      const image = path.join(temp.path, 'disk.img');
      closeSync(openSync(image, 'wx'));
      truncateSync(image, 96 << 20);
      execFileSync(`mkfs.${kind}`, [...(kind === 'ext4' ? ['-q', '-F', '-m', '0'] : []), image]);
      execFileSync('mount', ['-o', 'loop', image, daemon.root]);
    }
    const images = await buildKnownImages(path.join(temp.path, 'images'));
    archived = await buildArchivedImage(path.join(temp.path, 'images'), 'docker.io/library/archived:latest');
    registry = await TestRegistry.start(temp.path);
    const references = new Map<string, string>();
    for (const [name, { layout }] of images) references.set(name, await registry.fill(layout, `full/${name}:latest`));
    world = {
      directory: temp.path,
      namespace: 'full',
      lease: 'kept',
      cgroup: path.basename(temp.path),
      random: Random.fromEnvironment(),
      ledger: new Ledger(),
      images,
      references,
    };
    await daemon.start();
    connection = connect(daemon.address, world.namespace);
    await connection.leases.create({ id: world.lease });
    await pullImage(world, connection, 'base');
  });
  after(async () => {
    connection?.close();
    await daemon.stop();
    await registry?.close();
    await endProcesses(temp.path);
    await temp.remove();
  });

  /** Leaves so many bytes, or none at all. */
  function fill(left = 0): void {
    const file = openSync(filler, 'a');
    const block = Buffer.alloc(64 << 10, 1);
    try {
      for (let size = block.length; size >= 4096; size /= 2) {
        for (;;) {
          const { bavail, bsize } = statfsSync(daemon.root);
          if (left > 0 && bavail * bsize - size < left) break;
          try {
            writeSync(file, block, 0, size);
          } catch (error) {
            if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
            break;
          }
        }
      }
    } finally {
      closeSync(file);
    }
    execFileSync('sync', ['-f', daemon.root]);
  }

  const free = (): void => rmSync(filler, { force: true });

  /** What there is, on disk and in the records. */
  async function inventory() {
    await connection.leases.create({ id: 'collect' });
    await connection.leases.delete({ id: 'collect', sync: true });
    const folder = (...parts: string[]) => readdirSync(path.join(daemon.root, ...parts)).sort();
    return {
      content: (await gather(connection.content.list({}), ({ info }) => info)).map(({ digest }) => digest).sort(),
      blobs: folder('io.containerd.content.v1.content/blobs/sha256'),
      ingests: folder('io.containerd.content.v1.content/ingest'),
      statuses: (await connection.content.listStatuses({})).statuses.map(({ ref }) => ref),
      snapshots: (await gather(connection.snapshots.list({ snapshotter }), ({ info }) => info))
        .map(({ name }) => name)
        .sort(),
      directories: folder(`io.containerd.snapshotter.v1.${snapshotter}/snapshots`).length,
      images: (await connection.images.list({})).images.map(({ name }) => name).sort(),
      leases: (await connection.leases.list({})).leases.map(({ id }) => id).sort(),
    };
  }

  /** Fails for want of space, leaves nothing, works with space. `undo` is for what worked. */
  async function withAndWithoutSpace(left: number, call: () => Promise<unknown>, undo: () => Promise<unknown>) {
    const before = await inventory();
    fill(left);
    try {
      await assert.rejects(call(), full);
    } finally {
      free();
    }
    assert.deepEqual(await inventory(), before);
    await call();
    await checkWhole(world, connection);
    await undo();
    assert.deepEqual(await inventory(), before);
  }

  for (const left of [0, 1 << 20, 4 << 20]) {
    test(`a pull with ${left >> 10} KB left`, async () => {
      const call = () => pullImage(world, connection, 'one');
      await withAndWithoutSpace(left, call, () => connection.images.delete({ name: 'one', sync: true }));
    });
  }

  test('an import', async () => {
    const name = 'docker.io/library/archived:latest';
    const call = async () => {
      const args = ['-a', daemon.address, '-n', world.namespace, 'images', 'import', archived.archive];
      const { code, stderr } = await run(bin.ctr, args, { mayFail: true });
      if (code !== 0) {
        assert.match(stderr, /no space left on device/i);
        const { ledger } = world;
        ledger.images.entries.delete(name);
        throw resourceExhausted(stderr);
      }
    };
    await withAndWithoutSpace(200 << 10, call, () => connection.images.delete({ name, sync: true }));
  });

  test('a content write, which goes on from where it stopped', async () => {
    const bytes = randomBytes(3 << 20);
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    world.ledger.ingests.set('write', { bytes, digest, written: 0, committing: false });
    const before = await inventory();
    fill(1 << 20);
    await assert.rejects(writeBlob(world, connection, 'write'), full);
    free();
    const { status } = await connection.content.status({ ref: 'write' });
    assert.ok(Number(status?.offset) > 0);
    await writeBlob(world, connection, 'write');
    assert.equal(Number((await connection.content.info({ digest })).info?.size), bytes.length);
    await connection.content.delete({ digest }, { lease: world.lease });
    assert.deepEqual(await inventory(), before);
  });

  test('records and snapshots', async () => {
    const before = await inventory();
    fill();
    const made: string[] = [];
    let refused = 0;
    // lmdb's file has room of its own for a while.
    for (let number = 0; refused < 3 && number < 2000; number++) {
      const id = `lease-${number}`;
      try {
        await connection.leases.create({ id, labels: { filler: 'x'.repeat(3000) } });
        made.push(id);
      } catch (error) {
        assert.ok(full(error), String(error));
        refused++;
      }
    }
    assert.equal(refused, 3);
    const parent = world.images.get('base')!.chainIds.at(-1)!;
    await assert.rejects(
      connection.snapshots.prepare({ snapshotter, key: 'no-space', parent }, { lease: world.lease }),
      full,
    );
    // What frees goes on.
    for (const id of made.splice(0, made.length / 2)) await connection.leases.delete({ id });
    // What is read needs no space.
    assert.equal((await connection.images.list({})).images.length, before.images.length);
    assert.deepEqual(
      (await connection.leases.list({})).leases.map(({ id }) => id).sort(),
      [...before.leases, ...made].sort(),
    );
    free();
    for (const id of made) await connection.leases.delete({ id });
    await connection.snapshots.prepare({ snapshotter, key: 'no-space', parent }, { lease: world.lease });
    await connection.snapshots.remove({ snapshotter, key: 'no-space' }, { lease: world.lease });
    await eventually('all is as before', async () => {
      return JSON.stringify(await inventory()) === JSON.stringify(before) ? true : undefined;
    });
  });

  test('the daemon is the same, and the next one starts with what there is', async () => {
    const before = await inventory();
    connection.close();
    await daemon.stop();
    await daemon.start();
    connection = connect(daemon.address, world.namespace);
    await connection.ready(60_000);
    assert.deepEqual(await inventory(), before);
    await checkWhole(world, connection);
  });
});
