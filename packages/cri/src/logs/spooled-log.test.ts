import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LineClock, LineFormat } from './line-format.ts';
import { LogBlocked, LogBuffers, SpooledLog } from './spooled-log.ts';
import { FakeKernel, Killed } from './testing/fake-kernel.ts';

const journal = 1;
const spools = [2, 3] as const;
const pipes = [4, 5] as const;
const names = ['stdout', 'stderr'] as const;
const firstLog = 100;

/** mulberry32: a seed repeats a run. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Text of lines of all lengths, many of them the same as others, and perhaps without an end. */
function someText(random: () => number, max: number): Buffer {
  const lines: string[] = [];
  const count = 1 + Math.floor(random() * 40);
  for (let index = 0; index < count; index++) {
    const kind = random();
    const length = kind < 0.3 ? 0 : kind < 0.9 ? Math.floor(random() * 12) : Math.floor(random() * max * 4);
    lines.push((random() < 0.5 ? 'y' : String.fromCharCode(97 + Math.floor(random() * 26))).repeat(length));
  }
  return Buffer.from(lines.join('\n') + (random() < 0.5 ? '\n' : ''));
}

class Run {
  readonly kernel: FakeKernel;
  readonly random: () => number;
  readonly max: number;
  readonly tidyAt: { reset: number; move: number };
  readonly buffers = new LogBuffers();
  readonly written = [Buffer.alloc(0), Buffer.alloc(0)];
  /** Logs in the order in which they came to be; those before the last have been rotated away. */
  readonly logs = [firstLog];
  log!: SpooledLog;
  kills = 0;
  /** What somebody has read who follows each log. */
  readonly followed = new Map<number, Buffer>();
  /** Logs that could not be written for a time: a kill then may cost who reads them the end of a line that he has seen a part of. */
  readonly #givenUp = new Set<number>();

  constructor(seed: number) {
    this.random = randomOf(seed);
    this.kernel = new FakeKernel(this.random);
    this.max = this.random() < 0.2 ? 100_000 : 8 + Math.floor(this.random() * 40);
    this.tidyAt = { reset: 1 + Math.floor(this.random() * 100), move: 1 + Math.floor(this.random() * 100) };
    this.buffers.input = Buffer.alloc(16 + Math.floor(this.random() * 100));
    this.buffers.output = Buffer.alloc(this.buffers.input.length + 64 + Math.floor(this.random() * 400));
    this.begin();
  }

  /** As a new process does it; it may be killed in that, too. */
  begin(): void {
    const clock = new LineClock();
    const formats = [new LineFormat('stdout', clock), new LineFormat('stderr', clock)] as const;
    for (;;) {
      try {
        const { kernel, buffers, tidyAt } = this;
        this.log = new SpooledLog({ kernel, journal, spools, formats, maxLineSize: this.max, buffers, tidyAt });
        this.log.begin((earlier) => this.#open(earlier === undefined ? this.logs.at(-1)! : Number(earlier.ino)));
        return;
      } catch (error) {
        this.#survive(error);
      }
    }
  }

  #open(fd: number) {
    return { fd, identity: { dev: 1n, ino: BigInt(fd) } };
  }

  #survive(error: unknown): void {
    if ((error as { code?: string }).code === 'ENOSPC') return;
    if (!(error instanceof Killed)) throw error;
    this.kills++;
    this.follow();
    this.kernel.killIn = this.random() < 0.3 ? 1 + Math.floor(this.random() * 20) : Number.POSITIVE_INFINITY;
  }

  /** Something that may be the end of the process, and what it does instead if it is. */
  attempt(work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      if (error instanceof LogBlocked) return false;
      this.#survive(error);
      this.begin();
      return false;
    }
  }

  step(): void {
    const { kernel, random } = this;
    if (random() < 0.5) this.follow();
    if (Number.isFinite(kernel.room)) this.#givenUp.add(this.logs.at(-1)!);
    const stream = random() < 0.6 ? 0 : 1;
    const what = random();
    if (what < 0.3) {
      const text = someText(random, this.max > 1000 ? 20 : this.max);
      this.written[stream] = Buffer.concat([this.written[stream]!, text]);
      const pipe = kernel.pipe(pipes[stream]);
      pipe.bytes = Buffer.concat([pipe.bytes, text]);
    } else if (what < 0.6)
      this.attempt(() => void this.log.take(stream, pipes[stream], 1 + Math.floor(random() * 200)));
    else if (what < 0.9) this.attempt(() => this.log.write(stream, false));
    else if (what < 0.93) this.rotate();
    else if (what < 0.96) kernel.killIn = 1 + Math.floor(random() * 15);
    else if (random() < 0.5) kernel.room = Math.floor(random() * 200);
    else kernel.room = Number.POSITIVE_INFINITY;
  }

  rotate(): void {
    const next = this.logs.at(-1)! + 1;
    this.logs.push(next);
    this.attempt(() => void this.log.change(this.#open(next)));
  }

  finish(): void {
    this.kernel.room = Number.POSITIVE_INFINITY;
    for (const stream of [0, 1] as const) {
      this.kernel.pipe(pipes[stream]).writers = false;
      for (let ended = false; !ended; ) {
        this.attempt(() => {
          ended = this.log.take(stream, pipes[stream], 1000) === 0;
          this.log.write(stream, ended);
        });
      }
      while (!this.attempt(() => this.log.write(stream, true)));
    }
  }

  /** Reads what has come since it last did. */
  follow(): void {
    for (const fd of this.logs) {
      const before = this.followed.get(fd) ?? Buffer.alloc(0);
      this.followed.set(fd, Buffer.concat([before, this.kernel.file(fd).subarray(before.length)]));
    }
  }

  /** Whether who followed a log has the lines that are in it now. Their times may be others, if they were written again. */
  checkFollowed(): void {
    this.follow();
    for (const [fd, bytes] of this.followed) {
      if (this.#givenUp.has(fd)) continue;
      const [had, has] = [bytes, this.kernel.file(fd)].map((text) =>
        text
          .toString('latin1')
          .split('\n')
          .slice(0, -1)
          .map((line) => line.slice(31)),
      );
      assert.deepEqual(had, has, `log ${fd}`);
    }
  }

  /** What the logs say, put together as a reader would, and what is wrong with it. */
  read(): Buffer[] {
    const told = [[], []] as Buffer[][];
    for (const fd of this.logs) {
      const text = this.kernel.file(fd).toString('latin1');
      assert.ok(text === '' || text.endsWith('\n'), 'a torn line at the end of a log');
      for (const line of text.split('\n').slice(0, -1)) {
        const [, stream, tag, rest] =
          /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)$/.exec(line) ??
          assert.fail(`torn: ${line}`);
        assert.ok(rest!.length <= this.max);
        told[names.indexOf(stream as 'stdout')]!.push(Buffer.from(rest + (tag === 'F' ? '\n' : '')));
      }
    }
    return told.map((pieces) => Buffer.concat(pieces));
  }
}

test('killed in any system call, each line is in the log once and whole, in order', () => {
  const first = Number(process.env['GANTRY_FAULT_SEED'] ?? Date.now() % 1_000_000);
  const runs = process.env['GANTRY_FAULT_ROUNDS'] ? 3000 : 150;
  let kills = 0;
  for (let seed = first; seed < first + runs; seed++) {
    const run = new Run(seed);
    for (let step = 0; step < 120; step++) run.step();
    run.finish();
    kills += run.kills;
    run.checkFollowed();
    const told = run.read();
    for (const stream of [0, 1] as const)
      assert.ok(told[stream]!.equals(run.written[stream]!), `seed ${seed}: ${names[stream]} differs`);
  }
  assert.ok(kills > runs, `only ${kills} kills`);
});

test('killed in each system call in turn of one short life', () => {
  for (let at = 1; ; at++) {
    const run = new Run(at);
    const text = Buffer.from(`${'y\n'.repeat(30)}${'y'.repeat(200)}\n\ny`);
    run.written[0] = text;
    run.kernel.pipe(pipes[0]).bytes = text;
    run.kernel.killIn = at;
    run.finish();
    assert.ok(run.read()[0]!.equals(text), `call ${at}`);
    if (run.kills === 0) break;
    assert.ok(at < 10_000);
  }
});

test('killed in the middle of lines that somebody reads: he goes on in the middle of the same ones', () => {
  let kills = 0;
  for (let seed = 0; seed < 400; seed++) {
    const run = new Run(seed);
    run.kernel.pipe(pipes[0]).bytes = Buffer.from('from the one\n'.repeat(9));
    run.kernel.pipe(pipes[1]).bytes = Buffer.from('and from the other\n'.repeat(7));
    for (const stream of [0, 1] as const) run.attempt(() => void run.log.take(stream, pipes[stream], 1000));
    run.kernel.killIn = 1 + (seed % 8);
    run.attempt(() => run.log.write(1, false));
    run.kernel.killIn = Number.POSITIVE_INFINITY;
    for (const stream of [0, 1] as const) run.attempt(() => run.log.write(stream, false));
    run.checkFollowed();
    kills += run.kills;
  }
  assert.ok(kills > 100, `only ${kills} kills`);
});

test('a full disk: whole lines stay, nothing is torn, and the rest comes when there is room', () => {
  const run = new Run(7);
  const text = Buffer.from('a line\nanother\n'.repeat(50));
  run.written[0] = text;
  run.kernel.pipe(pipes[0]).bytes = text;
  run.kernel.room = 500;
  for (let count = 0; count < 100; count++) {
    run.attempt(() => void run.log.take(0, pipes[0], 1000));
    run.attempt(() => run.log.write(0, false));
  }
  const before = run.read()[0]!;
  assert.ok(before.length > 0 && before.length < text.length);
  assert.ok(text.subarray(0, before.length).equals(before));
  assert.throws(() => run.log.write(0, false), LogBlocked);
  run.finish();
  assert.ok(run.read()[0]!.equals(text));
});

test('what waits for a log that cannot be written is bounded', () => {
  const run = new Run(11);
  run.kernel.room = 0;
  run.kernel.pipe(pipes[0]).bytes = Buffer.alloc(4 << 20, 'y\n');
  let last: number | 'full' = 0;
  for (let count = 0; count < 10_000 && last !== 'full'; count++) last = run.log.take(0, pipes[0], 1 << 20);
  assert.equal(last, 'full');
  assert.ok(run.log.waiting(0) <= 400_000);
});
