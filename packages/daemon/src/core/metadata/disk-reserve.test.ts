import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { LmdbStore } from './lmdb-store.ts';

const rounds = Number(process.env['GANTRY_FAULT_ROUNDS'] ?? 1);
const seed = Number(process.env['GANTRY_FAULT_SEED'] ?? Math.floor(Math.random() * 2 ** 32));

/** A filesystem of 64 MB (btrfs: 128), mounted for one test. */
const filesystems: Record<string, (directory: string, image: string) => void> = {
  tmpfs: (directory) => execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'gantry-reserve', directory]),
  ext4: (directory, image) => mountImage(directory, image, 64 << 20, ['mkfs.ext4', '-q', '-F', '-m', '0']),
  // Without fallocate.
  ext2: (directory, image) => mountImage(directory, image, 64 << 20, ['mkfs.ext2', '-q', '-F', '-m', '0']),
  btrfs: (directory, image) => mountImage(directory, image, 128 << 20, ['mkfs.btrfs', '-q', '-f']),
};

function mountImage(directory: string, image: string, size: number, [program, ...args]: string[]): void {
  closeSync(openSync(image, 'wx'));
  truncateSync(image, size);
  execFileSync(program!, [...args, image]);
  execFileSync('mount', ['-o', 'loop', image, directory]);
}

function missing(kind: string): string | false {
  if (process.getuid?.() !== 0) return 'mounts need root';
  if (kind === 'btrfs' && !('GANTRY_FAULT_ROUNDS' in process.env)) return 'takes half a minute: npm run test:fault';
  if (!new RegExp(`\\b${kind}$`, 'm').test(readFileSync('/proc/filesystems', 'utf8')))
    return `no ${kind} in this kernel`;
  if (kind !== 'tmpfs' && spawnSync(`mkfs.${kind}`, ['-V']).error) return `no mkfs.${kind}`;
  return false;
}

/** Numbers from a seed, so that a failure can be had again. */
function random(start: number): (below: number) => number {
  let state = start >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function fill(file: string): void {
  const fd = openSync(file, 'a');
  const block = Buffer.alloc(1 << 20, 1);
  for (let size = block.length; size >= 4096; ) {
    try {
      if (writeSync(fd, block, 0, size) < size) size /= 2;
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      size /= 2;
    }
  }
  closeSync(fd);
}

const full = (error: unknown): boolean =>
  hasCode(error, Code.ResourceExhausted) && error.message === 'metadata cannot be written: no space left on device';

for (const [kind, mount] of Object.entries(filesystems)) {
  describe(`metadata on a full ${kind}`, { skip: missing(kind) }, () => {
    for (let round = 0; round < rounds; round++) {
      test(`refuses what adds, takes what frees, and goes on with space; seed ${seed + round}`, async () => {
        const below = random(seed + round);
        const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-reserve-'));
        const disk = path.join(directory, 'disk');
        mkdirSync(disk);
        mount(disk, path.join(directory, 'image'));
        try {
          const file = path.join(disk, 'meta.lmdb');
          const filler = path.join(disk, 'filler');
          let store = await LmdbStore.open({ path: file });
          const model = new Map<string, string>();
          let refused = 0;
          /** One update of a few records, or of many, or of a large one; some throw. */
          const update = async (): Promise<void> => {
            const changes = new Map<string, string | undefined>();
            const kindOf = below(100);
            const count = kindOf < 2 ? 400 : 1 + below(6);
            for (let number = 0; number < count; number++) {
              const length = kindOf === 99 ? below(2 << 20) : below(10) === 0 ? below(20_000) : below(600);
              changes.set(String(below(4000)), below(4) === 0 ? undefined : 'x'.repeat(length));
            }
            const fails = below(20) === 0;
            try {
              await store.update((tx) => {
                for (const [name, value] of changes) {
                  if (value === undefined) tx.remove(['record', name]);
                  else tx.put(['record', name], value);
                }
                if (fails) throw new RangeError('on purpose');
                tx.afterCommit(() => {
                  for (const [name, value] of changes) {
                    if (value === undefined) model.delete(name);
                    else model.set(name, value);
                  }
                });
              });
            } catch (error) {
              if (error instanceof RangeError) return;
              assert.ok(full(error), String(error));
              refused++;
            }
          };
          const busy = async (number: number): Promise<void> => {
            for (let done = 0; done < number; ) {
              const batch = 1 + below(16);
              await Promise.all(Array.from({ length: batch }, update));
              done += batch;
            }
          };
          const check = (): void => {
            const found = new Map(
              store.view((tx) => [...tx.list<string>(['record'])].map(({ key, value }) => [key[1]!, value])),
            );
            assert.deepEqual([...found.keys()].sort(), [...model.keys()].sort());
            for (const [name, value] of model) assert.equal(found.get(name), value);
          };
          await busy(60 + below(100));
          for (let time = 0; time < 3; time++) {
            fill(filler);
            await busy(300);
            for (let number = 0; refused === 0; number++) {
              assert.ok(number < 5000, 'nothing was refused');
              await store
                .update((tx) => tx.put(['more', String(number)], 'x'.repeat(15_000)))
                .catch((error) => {
                  assert.ok(full(error), String(error));
                  refused++;
                });
            }
            check();
            if (below(2) === 0) {
              await store.close();
              store = await LmdbStore.open({ path: file });
            }
            // What frees goes on, one after another and all at once.
            for (const name of [...model.keys()].slice(0, 200)) {
              await store.update((tx) => tx.remove(['record', name]));
              model.delete(name);
            }
            await store.update((tx) => tx.removeAll(['more']));
            check();
            rmSync(filler);
            if (kind === 'btrfs') execFileSync('sync', ['-f', disk]);
            await store.update((tx) => tx.put(['record', 'after'], String(time)));
            model.set('after', String(time));
            refused = 0;
            await busy(50);
            check();
          }
          await store.close();
          assert.ok(statSync(file).size < 60 << 20);
        } finally {
          // lmdb keeps maps of the file that it has outgrown.
          execFileSync('umount', ['-l', disk]);
          rmSync(directory, { recursive: true, force: true });
        }
      });
    }
  });
}

test('what is in reserve has been written, so that a sync of it writes no extents', {
  skip: missing('ext4') || (spawnSync('filefrag', ['-V']).error ? 'no filefrag' : false),
}, async () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-reserve-'));
  const disk = path.join(directory, 'disk');
  mkdirSync(disk);
  filesystems['ext4']!(disk, path.join(directory, 'image'));
  try {
    const file = path.join(disk, 'meta.lmdb');
    const store = await LmdbStore.open({ path: file });
    // The first update is the store's own, of its version.
    const before = unwritten(file);
    await store.update((tx) => tx.put(['record', 'large'], 'x'.repeat(800_000)));
    await store.close();
    const after = await LmdbStore.open({ path: file });
    assert.deepEqual([before, unwritten(file)], [0, 0]);
    await after.close();
  } finally {
    execFileSync('umount', ['-l', disk]);
    rmSync(directory, { recursive: true, force: true });
  }
});

/** How many extents of a file are allocated only. */
function unwritten(file: string): number {
  const found = execFileSync('filefrag', ['-v', '-s', file], { encoding: 'utf8' });
  assert.match(found, /\d+ extents? found/);
  return found.match(/unwritten/g)?.length ?? 0;
}
