import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { close, mkfifo, O } from '@gantry/sys';
import type { ContainerLogOptions, OutputName } from './container-logs.ts';
import { quiet, readNumbered } from './testing/log-lines.ts';
import { WorkerLogs } from './worker-logs.ts';

const program = (name: string) => path.join(import.meta.dirname, 'testing', `${name}.ts`);
const patienceMs = 60_000;

let directory: string;
let options: ContainerLogOptions;
let logs: WorkerLogs;

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-logs-'));
  for (const name of ['stdout', 'stderr']) mkfifo(path.join(directory, name), 0o600);
  options = {
    containerId: 'c',
    stdin: '',
    stdout: path.join(directory, 'stdout'),
    stderr: path.join(directory, 'stderr'),
    terminal: false,
    stdinOnce: false,
    logPath: path.join(directory, 'logs/pod/0.log'),
    maxLineSize: 16384,
    stateDirectory: path.join(directory, 'state'),
  };
  logs = new WorkerLogs(quiet);
});
afterEach(async () => {
  await logs.close();
  rmSync(directory, { recursive: true });
});

/** As a container's process has it: for both, so that it is its own last reader. */
const ends = () => [options.stdout, options.stderr].map((fifo) => openSync(fifo, O.RDWR));

function write(lines: number, pauseMs = 0): ChildProcess {
  const [stdout, stderr] = ends();
  const child = spawn(process.execPath, [program('writer'), String(lines), String(pauseMs)], {
    stdio: ['ignore', stdout!, stderr!],
  });
  for (const fd of [stdout, stderr]) close(fd!);
  return child;
}

async function until<T>(what: string, look: () => T | undefined | false): Promise<T> {
  const late = performance.now() + patienceMs;
  for (;;) {
    const found = look();
    if (found) return found;
    if (performance.now() > late) throw new Error(`${what} does not happen`);
    await sleep(5);
  }
}

test('both streams in one log; the end comes when all is written, and leaves no state', async () => {
  const io = await logs.open(options);
  const child = write(3000);
  await sleep(1);
  io.started();
  await once(child, 'exit');
  io.exited();
  await io.drained;
  await io.close();
  assert.deepEqual(await readNumbered([options.logPath]), { stdout: 3000, stderr: 3000 });
  assert.equal(existsSync(options.stateDirectory), false);
  assert.equal(statSync(options.logPath).mode & 0o777, 0o640);
  const { inputEntries, outputEntries, splitEntries, outputBytes } = logs.counts();
  assert.deepEqual([inputEntries, outputEntries - splitEntries], [6000n, 6000n]);
  assert.equal(outputBytes, BigInt(statSync(options.logPath).size));
});

test('killed at random moments of a flood, nothing is lost, torn or doubled', async () => {
  const rounds = Number(process.env['GANTRY_FAULT_ROUNDS'] ?? 3);
  const holders = ends();
  const lines = rounds * 4000;
  const begin = async (how: string[]): Promise<ChildProcess> => {
    const child = spawn(process.execPath, [program('copier'), JSON.stringify(options), ...how], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout!, 'data');
    return child;
  };
  const writer = write(lines, 20);
  const written = once(writer, 'exit');
  for (let round = 0; round < rounds; round++) {
    const copier = await begin(round === 0 ? [] : ['resume']);
    await sleep(Math.random() * 150);
    copier.kill('SIGKILL');
    await once(copier, 'exit');
  }
  const last = await begin(['resume']);
  await written;
  last.kill('SIGKILL');
  await once(last, 'exit');
  const copier = await begin(['exited']);
  const ended = once(copier, 'exit');
  for (const fd of holders) close(fd);
  assert.deepEqual(await ended, [0, null]);
  assert.deepEqual(await readNumbered([options.logPath]), { stdout: lines, stderr: lines });
  assert.equal(existsSync(options.stateDirectory), false);
});

test('a log that is rotated during a flood, again and again, loses nothing', async () => {
  const io = await logs.open(options);
  const child = write(20_000);
  await sleep(1);
  io.started();
  const ended = once(child, 'exit');
  const rotated: string[] = [];
  while (child.exitCode === null && rotated.length < 30) {
    await sleep(20);
    rotated.push(`${options.logPath}.${rotated.length}`);
    renameSync(options.logPath, rotated.at(-1)!);
    await io.reopen();
    assert.ok(existsSync(options.logPath));
  }
  await ended;
  io.exited();
  await io.drained;
  await io.close();
  assert.ok(rotated.length > 2);
  assert.deepEqual(await readNumbered([...rotated, options.logPath]), { stdout: 20_000, stderr: 20_000 });
});

test('killed between renaming and reopening, the old log is gone on with until a new one is asked for', async () => {
  const [stdout, stderr] = ends();
  const say = (text: string) => writeSync(stdout!, text);
  const text = (file: string) => readFileSync(file, 'utf8').replace(/^\S+ stdout F /gm, '');
  let io = await logs.open(options);
  io.started();
  say('before\n');
  await until('the line', () => text(options.logPath) === 'before\n');
  await logs.close();
  const moved = `${options.logPath}.20260101`;
  renameSync(options.logPath, moved);
  logs = new WorkerLogs(quiet);
  io = await logs.open(options, { exited: false });
  say('between\n');
  await until('the line', () => text(moved) === 'before\nbetween\n');
  assert.equal(existsSync(options.logPath), false);
  await io.reopen();
  say('after\n');
  await until('the line', () => text(options.logPath) === 'after\n');
  assert.equal(text(moved), 'before\nbetween\n');
  for (const fd of [stdout, stderr]) close(fd!);
  io.exited();
  await io.drained;
  await io.close();
});

test('a full disk: output waits, and goes on when there is room', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async () => {
  const disk = path.join(directory, 'disk');
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'none', disk]);
  try {
    const said: string[] = [];
    await logs.close();
    const note = (message: string): void => void said.push(message);
    logs = new WorkerLogs({ ...quiet, error: note, info: note });
    options.logPath = path.join(disk, '0.log');
    const io = await logs.open(options);
    const child = write(3000);
    const ended = once(child, 'exit');
    await sleep(1);
    io.started();
    await until('the log is full', () => said.includes('log cannot be written: output waits'));
    // What is there is whole.
    assert.ok(readFileSync(options.logPath, 'latin1').endsWith('\n'));
    execFileSync('mount', ['-o', 'remount,size=16m', disk]);
    await ended;
    io.exited();
    await io.drained;
    await io.close();
    assert.ok(said.includes('log can be written again'));
    assert.deepEqual(await readNumbered([options.logPath]), { stdout: 3000, stderr: 3000 });
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

test('one that has ended on a full disk is written by the next daemon', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async () => {
  const disk = path.join(directory, 'disk');
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'none', disk]);
  try {
    options.logPath = path.join(disk, '0.log');
    let io = await logs.open(options);
    const child = write(400);
    const ended = once(child, 'exit');
    await sleep(1);
    io.started();
    await ended;
    io.exited();
    await until('all is taken', () => readdirSync(options.stateDirectory).length === 3);
    await sleep(50);
    await logs.close();
    for (const fifo of [options.stdout, options.stderr]) rmSync(fifo);
    execFileSync('mount', ['-o', 'remount,size=16m', disk]);
    logs = new WorkerLogs(quiet);
    io = await logs.open({ ...options, stdout: '', stderr: '' }, { exited: true });
    await io.drained;
    await io.close();
    assert.deepEqual(await readNumbered([options.logPath]), { stdout: 400, stderr: 400 });
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

test('those who follow get all from then on, with a log and without one', async () => {
  for (const logPath of [options.logPath, '']) {
    const io = await logs.open({ ...options, logPath });
    const [stdout, stderr] = ends();
    io.started();
    const got: Record<OutputName, string> = { stdout: '', stderr: '' };
    let over = false;
    const leave = io.follow(
      (name, bytes) => {
        got[name] += Buffer.from(bytes).toString();
      },
      () => {
        over = true;
      },
    );
    writeSync(stdout!, 'a prompt: ');
    await until('the prompt', () => got.stdout === 'a prompt: ');
    writeSync(stderr!, 'an error\n');
    await until('the error', () => got.stderr === 'an error\n');
    const left = { ...got };
    const stop = io.follow(
      (name, bytes) => {
        left[name] += Buffer.from(bytes).toString();
      },
      () => undefined,
    );
    stop();
    writeSync(stdout!, 'x'.repeat(60_000));
    await until('the rest', () => got.stdout.length === 60_010);
    assert.equal(left.stdout, 'a prompt: ');
    for (const fd of [stdout, stderr]) close(fd!);
    assert.equal(over, false);
    io.exited();
    await io.drained;
    assert.equal(over, true);
    leave();
    await io.close();
  }
  const lines = readFileSync(options.logPath, 'latin1')
    .split('\n')
    .map((line) => line.slice(31, 41));
  assert.deepEqual(lines, ['stderr F a', 'stdout P a', 'stdout P x', 'stdout P x', 'stdout P x', '']);
});

test('a thread that dies is replaced, and nothing is lost', async () => {
  const io = await logs.open(options);
  const child = write(20_000, 5);
  await sleep(1);
  io.started();
  const ended = once(child, 'exit');
  for (let count = 0; count < 3; count++) {
    await sleep(50);
    await logs.endThread();
  }
  await ended;
  io.exited();
  await io.drained;
  await io.close();
  assert.deepEqual(await readNumbered([options.logPath]), { stdout: 20_000, stderr: 20_000 });
});

test('one that floods does not hold up another', async () => {
  const flood = await logs.open(options);
  const child = write(50_000);
  await sleep(1);
  flood.started();
  const other = { ...options, stateDirectory: path.join(directory, 'state2'), logPath: path.join(directory, '2.log') };
  for (const name of ['stdout', 'stderr'] as const) {
    other[name] = path.join(directory, `${name}2`);
    mkfifo(other[name], 0o600);
  }
  const io = await logs.open(other);
  const fd = openSync(other.stdout, O.RDWR);
  io.started();
  let slowest = 0;
  for (let count = 1; count <= 20 && child.exitCode === null; count++) {
    const begun = performance.now();
    writeSync(fd, 'now\n');
    await until('the line', () => readFileSync(other.logPath, 'latin1').split('\n').length > count);
    slowest = Math.max(slowest, performance.now() - begun);
  }
  assert.ok(slowest < 5000, `${slowest} ms`);
  close(fd);
  child.kill('SIGKILL');
  await once(child, 'exit');
  for (const each of [io, flood]) {
    each.exited();
    await each.drained;
    await each.close();
  }
});

test('a process that exits is not held up by the thread', async () => {
  const child = spawn(process.execPath, [program('copier'), JSON.stringify(options), 'leave'], { stdio: 'ignore' });
  const late = setTimeout(() => child.kill('SIGKILL'), patienceMs);
  assert.deepEqual(await once(child, 'exit'), [7, null]);
  clearTimeout(late);
});

test('a log that cannot be opened is said so', async () => {
  await assert.rejects(logs.open({ ...options, logPath: '/dev/null/x/0.log' }), /failed to create and open log file/);
});
