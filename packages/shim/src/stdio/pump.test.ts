import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasErrno, O, pipe2 } from '@gantry/sys';
import { Pump } from './pump.ts';

const block = Buffer.alloc(30_000, 'x');

function readSome(fd: number): number {
  try {
    return readSync(fd, Buffer.alloc(200_000));
  } catch (error) {
    if (hasErrno(error, 'EAGAIN')) return -1;
    throw error;
  }
}

for (const splice of [true, false])
  test(`moves everything through a full pipe, ${splice ? 'spliced' : 'copied'}`, async () => {
    const [inRead, inWrite] = pipe2();
    const [outRead, outWrite] = pipe2(O.NONBLOCK);
    const pump = new Pump(inRead, outWrite, { splice });
    let read = 0;
    for (let round = 0; round < 20; round++) {
      writeSync(inWrite, block);
      await new Promise((resolve) => setImmediate(resolve));
      if (round % 3 === 2)
        for (let n = readSome(outRead); n > 0; n = readSome(outRead)) {
          read += n;
          await new Promise((resolve) => setImmediate(resolve));
        }
    }
    closeSync(inWrite);
    pump.finish();
    for (let n = readSome(outRead); n !== 0; n = readSome(outRead)) {
      if (n > 0) read += n;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await pump.done;
    closeSync(outRead);
    assert.equal(read, 20 * block.length);
  });

test('to a file', async () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-pump-'));
  try {
    const file = path.join(directory, 'log');
    const [read, write] = pipe2();
    const pump = new Pump(read, openSync(file, 'a'), { splice: true });
    writeSync(write, 'one\n');
    await new Promise((resolve) => setImmediate(resolve));
    writeSync(write, 'two\n');
    closeSync(write);
    await pump.done;
    assert.equal(readFileSync(file, 'utf8'), 'one\ntwo\n');
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('finish stops at once while somebody may still write', async () => {
  const [read, write] = pipe2();
  const [outRead, outWrite] = pipe2();
  const pump = new Pump(read, outWrite, { splice: true });
  pump.finish();
  await pump.done;
  assert.equal(readSome(outRead), 0);
  closeSync(write);
  closeSync(outRead);
});
