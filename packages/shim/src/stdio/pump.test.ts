import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasErrno, mkfifo, O, pipe2, setNonblocking } from '@gantry/sys';
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

test('finish ends it for its reader while somebody may still write, who is held up by nothing', async () => {
  const [read, write] = pipe2();
  const [outRead, outWrite] = pipe2();
  const pump = new Pump(read, outWrite, { splice: true });
  pump.finish();
  await pump.done;
  assert.equal(readSome(outRead), 0);
  setNonblocking(write, true);
  let written = 0;
  while (written < 40 * block.length) {
    try {
      written += writeSync(write, block);
    } catch (error) {
      if (!hasErrno(error, 'EAGAIN')) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
  const before = readdirSync('/proc/self/fd').length;
  closeSync(write);
  closeSync(outRead);
  // The writer's, the reader's, and what was read from and written to behind them.
  while (readdirSync('/proc/self/fd').length > before - 4) await new Promise((resolve) => setTimeout(resolve, 5));
});

test('what found no reader stays until the owner is done', async () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-pump-'));
  try {
    const fifo = path.join(directory, 'fifo');
    mkfifo(fifo, 0o600);
    const [read, write] = pipe2();
    const pump = new Pump(read, openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK), { splice: true });
    writeSync(write, 'for later');
    closeSync(write);
    await pump.done;
    const late = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const buffer = Buffer.alloc(20);
    assert.equal(buffer.toString('utf8', 0, readSync(late, buffer)), 'for later');
    assert.equal(readSome(late), -1);
    pump.finish();
    assert.equal(readSome(late), 0);
    closeSync(late);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a reader that is killed before it has read all leaves the rest to the next one', async () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-pump-'));
  try {
    const fifo = path.join(directory, 'fifo');
    mkfifo(fifo, 0o600);
    const [read, write] = pipe2();
    const first = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const pump = new Pump(read, openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK), { splice: true });
    writeSync(write, 'first, second');
    closeSync(write);
    await pump.done;
    readSync(first, Buffer.alloc(7));
    closeSync(first);
    const next = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const buffer = Buffer.alloc(20);
    assert.equal(buffer.toString('utf8', 0, readSync(next, buffer)), 'second');
    pump.finish();
    closeSync(next);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a reader sees the end as soon as it has read all', async () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-shim-pump-'));
  try {
    const fifo = path.join(directory, 'fifo');
    mkfifo(fifo, 0o600);
    const [read, write] = pipe2();
    const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const pump = new Pump(read, openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK), { splice: true });
    writeSync(write, 'all');
    closeSync(write);
    await pump.done;
    assert.equal(readSome(reader), 3);
    while (readSome(reader) !== 0) await new Promise((resolve) => setTimeout(resolve, 1));
    closeSync(reader);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
