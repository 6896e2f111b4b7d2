import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import zlib from 'node:zlib';
import { plainLayer } from './plain-layer.ts';
import { type ProcessorStep, runProcessor } from './stream-processor.ts';
import { tempDirectory } from './testing/fixtures.ts';

const never = new AbortController().signal;

const shell = (script: string, more: Partial<ProcessorStep> = {}): ProcessorStep => ({
  id: 'test',
  file: '/bin/sh',
  args: ['-c', script],
  env: [],
  mediaType: 'application/x-in',
  ...more,
});

async function* parts(...list: (string | Buffer)[]): AsyncGenerator<Buffer> {
  for (const part of list) yield Buffer.from(part as string);
}

async function* endless(): AsyncGenerator<Buffer> {
  const buffer = Buffer.alloc(256 << 10, 'x');
  for (;;) yield buffer;
}

async function read(bytes: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of bytes) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString();
}

const run = (script: string, more?: Partial<ProcessorStep>, source = parts('in ', 'put')) =>
  read(runProcessor(shell(script, more), source, never));

/** A process that is not there, or is only waiting to be collected. */
function isGone(pid: number): boolean {
  if (!existsSync(`/proc/${pid}`)) return true;
  return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

/** What was killed needs a moment to die. */
async function gone(pids: number[]): Promise<void> {
  for (const deadline = Date.now() + 10_000; !pids.every(isGone); await sleep(5)) {
    assert.ok(Date.now() < deadline, `still there: ${pids.filter((pid) => !isGone(pid)).join(', ')}`);
  }
}

test('a program is given the bytes, its media type, its environment and its payload', async () => {
  assert.equal(await run('tr a-z A-Z'), 'IN PUT');
  const script = 'cat >/dev/null; echo "$STREAM_PROCESSOR_MEDIATYPE $A $B $PATH"; cat <&3';
  const told = await run(script, { env: ['A=1=2', 'B=', 'PATH=/bin:/usr/bin'], payload: Buffer.from('payload') });
  assert.equal(told, 'application/x-in 1=2  /bin:/usr/bin\npayload');
  assert.equal(await run('if [ -e /proc/self/fd/3 ]; then echo yes; else echo no; fi; cat >/dev/null'), 'no\n');
  const large = Buffer.alloc(300_000, 'p');
  assert.equal(await run('wc -c <&3', { payload: large }), '300000\n');
  assert.equal(await run('exec 3<&-; cat', { payload: large }), 'in put');
});

test('much more than a pipe holds flows through, at the speed of the reader', async () => {
  const total = 40 << 20;
  const source = async function* () {
    const buffer = Buffer.alloc(1 << 20);
    for (let at = 0; at < total; at += buffer.length) {
      buffer.fill(at >> 20);
      yield buffer;
    }
  };
  let size = 0;
  for await (const chunk of runProcessor(shell('cat'), source(), never)) {
    const at = size % (1 << 20);
    assert.equal(chunk[0], (size - at) >> 20);
    size += chunk.length;
  }
  assert.equal(size, total);
});

test('a program that fails is told of by its exit and what it said', async () => {
  await assert.rejects(run('cat; echo "no key for this" >&2; exit 3'), {
    message: 'stream processor test (/bin/sh): exit status 3: no key for this',
  });
  await assert.rejects(run('exit 1', {}, endless()), { message: 'stream processor test (/bin/sh): exit status 1' });
  await assert.rejects(run('kill -9 $$', {}, endless()), /killed by signal 9/);
  await assert.rejects(
    run('cat', { file: '/nonexistent' }),
    /failed to get stream processor for application\/x-in: test: /,
  );
});

test('a program need not read everything', async () => {
  assert.equal(await run('echo enough', {}, endless()), 'enough\n');
});

test('what the source fails of is what fails', async () => {
  const failing = async function* () {
    yield Buffer.from('some');
    throw new Error('the line is cut');
  };
  await assert.rejects(run('cat; sleep 1000', {}, failing()), { message: 'the line is cut' });
});

test('a reader that stops, and a cancelled job, end the program and all it started', async (t) => {
  const file = path.join(tempDirectory(t), 'pids');
  const script = `sleep 1000 & echo $! $$ > ${file}; echo up; cat >/dev/null; sleep 1000`;
  const pids = () => readFileSync(file, 'utf8').trim().split(' ').map(Number);
  for await (const chunk of runProcessor(shell(script), endless(), never)) {
    assert.equal(chunk.toString(), 'up\n');
    assert.deepEqual(pids().map(isGone), [false, false]);
    break;
  }
  await gone(pids());

  const controller = new AbortController();
  const reading = (async () => {
    for await (const _ of runProcessor(shell(script), endless(), controller.signal))
      controller.abort(new Error('enough'));
  })();
  await assert.rejects(reading, { message: 'enough' });
  await gone(pids());
});

test('programs in a row, and what is packed at their end is unpacked', async () => {
  const packed = zlib.gzipSync('plain');
  const source = parts(Buffer.from(packed.map((byte) => byte ^ 0x20)));
  const flip = shell(
    `${process.execPath} -e "process.stdin.on('data', (d) => process.stdout.write(d.map((b) => b ^ 32)))"`,
  );
  const processors = [flip, shell('cat'), shell('cat')];
  const { compression, bytes } = await plainLayer(source, { processors }, never);
  assert.equal(compression, 'gzip');
  assert.equal(await read(bytes), 'plain');
});
