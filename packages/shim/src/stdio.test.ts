import assert from 'node:assert/strict';
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Status } from '@gantry/api/gen/types/task/task_pb.js';
import { ended, ShimLab } from './testing/shim-lab.ts';

const noStdio = { stdin: '', stdout: '', stderr: '' };
const megabytes8 = 8 * 1024 * 1024;
const write8 = 'dd if=/dev/zero bs=64k count=128 2>/dev/null; echo end';
const skip = await ShimLab.unable('runc');

describe('standard streams', { skip: skip ?? false }, () => {
  let lab: ShimLab;
  before(async () => {
    lab = await ShimLab.open('runc');
  });
  after(() => lab.close());

  type Io = Partial<typeof noStdio> & { terminal?: boolean };

  const make = async (id: string, script: string, stdio: Io = {}, more = {}) => {
    const bundle = lab.bundle(id, { args: ['sh', '-c', script], terminal: stdio.terminal ?? false, ...more });
    const shim = await lab.start(id);
    const created = { id, bundle, rootfs: lab.rootfsMounts, options: lab.options, ...noStdio, ...stdio };
    const { pid } = await shim.task.create(created);
    await shim.task.start({ id });
    lab.letGo();
    return { ...shim, pid, bundle };
  };
  const exec = async (
    task: Awaited<ReturnType<typeof make>>['task'],
    id: string,
    execId: string,
    script: string,
    stdio: Io,
  ) => {
    const spec = lab.execSpec(['sh', '-c', script], stdio.terminal ?? false);
    await task.exec({ id, execId, spec, ...noStdio, ...stdio });
    await task.start({ id, execId });
    lab.letGo();
  };
  const remove = async (task: Awaited<ReturnType<typeof make>>['task'], id: string) => {
    await task.kill({ id, signal: 9, all: true }).catch(() => {});
    await task.wait({ id });
    await task.delete({ id });
  };
  /** A client that opens the FIFO, and begins to read only after a while. */
  const readLate = async (fifo: string, afterMs: number): Promise<number> => {
    const holder = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    const socket = new Socket({ fd: openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK), readable: true });
    await sleep(afterMs);
    let bytes = 0;
    socket.on('data', (data: Buffer) => {
      bytes += data.length;
      // A slow one: it takes a breath after each piece.
      socket.pause();
      setTimeout(() => socket.resume(), 1);
    });
    closeSync(holder);
    await new Promise<void>((resolve) => socket.on('close', () => resolve()));
    return bytes;
  };
  const typeInto = (fifo: string, text: string) => {
    const fd = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
    writeSync(fd, text);
    closeSync(fd);
  };

  for (const [how, more, terminal] of [
    ['direct', {}, false],
    ['relayed', { without: ['pid'] }, false],
    ['a terminal', {}, true],
  ] as const) {
    test(`8 MB and the end, ${how}: Delete follows Wait at once, and the reader is late and slow`, async () => {
      const id = `big-${how.replace('a ', '')}`;
      const { stdout } = lab.fifos(id);
      const { task } = await make(id, `${terminal ? 'stty raw -opost; ' : ''}${write8}`, { stdout, terminal }, more);
      const read = readLate(stdout, 300);
      await task.wait({ id });
      await task.delete({ id });
      assert.equal(await read, megabytes8 + 4);
    });
  }

  test('8 MB of an exec, with and without a terminal; a reader that rests for longer than Delete waits', async () => {
    const id = 'host';
    const { task } = await make(id, 'sleep 1000');
    for (const terminal of [false, true]) {
      const execId = `big-${terminal}`;
      const { stdout } = lab.fifos(execId);
      await exec(task, id, execId, `${terminal ? 'stty raw -opost; ' : ''}${write8}`, { stdout, terminal });
      const read = readLate(stdout, 0);
      assert.equal((await task.wait({ id, execId })).exitStatus, 0);
      await task.delete({ id, execId });
      assert.equal(await read, megabytes8 + 4);
    }
    // What fits into the pipes is there when everything else has been gone for long, the shim's last container too.
    const execId = 'resting';
    const { stdout } = lab.fifos(execId);
    await exec(task, id, execId, 'seq 1 18000', { stdout });
    const read = readLate(stdout, 4000);
    await task.wait({ id, execId });
    await task.delete({ id, execId });
    await remove(task, id);
    await task.shutdown({ id, now: true });
    assert.equal(await read, lengthOfSequence(18000));
  });

  test('what an exec leaves behind may write on after its Delete, and holds nobody up', async () => {
    const id = 'leaver';
    const { task } = await make(id, 'sleep 1000');
    const { stdout } = lab.fifos('left');
    const out = lab.read(stdout);
    const script =
      '(dd if=/dev/zero bs=64k count=64 2>/dev/null; echo done > /tmp/left; sleep 1000) & sleep 0.2; exit 3';
    await exec(task, id, 'left', script, { stdout });
    assert.equal((await task.wait({ id, execId: 'left' })).exitStatus, 3);
    await task.delete({ id, execId: 'left' });
    await out;
    for (const end = Date.now() + 20_000; ; await sleep(20)) {
      if (readIfThere(path.join(lab.rootfs, 'tmp/left')) === 'done\n') break;
      assert.ok(Date.now() < end, 'it waits for somebody to read what it writes');
    }
    await remove(task, id);
  });

  test('clients attach, write and leave; only CloseIO is the end of input', async () => {
    const id = 'visitors';
    const fifos = lab.fifos(id);
    const out = lab.read(fifos.stdout);
    const { task } = await make(id, 'cat; echo over', fifos);
    for (const text of ['one ', 'two ', 'three\n']) {
      typeInto(fifos.stdin, text);
      await sleep(50);
      assert.equal((await task.state({ id })).status, Status.RUNNING);
    }
    await task.closeIO({ id, stdin: true });
    await task.wait({ id });
    await task.delete({ id });
    assert.equal(await out, 'one two three\nover\n');
  });

  test('CloseIO between Exec and Start: what was written before is all the input there is', async () => {
    const id = 'early';
    const { task } = await make(id, 'sleep 1000');
    for (const text of ['said before\n', '']) {
      const execId = `early-${text.length}`;
      const fifos = lab.fifos(execId);
      const out = lab.read(fifos.stdout);
      const holder = openSync(fifos.stdin, constants.O_RDWR | constants.O_NONBLOCK);
      await task.exec({ id, execId, spec: lab.execSpec(['sh', '-c', 'cat; echo over'], false), ...noStdio, ...fifos });
      writeSync(holder, text);
      await task.closeIO({ id, execId, stdin: true });
      await task.start({ id, execId });
      closeSync(holder);
      lab.letGo();
      await task.wait({ id, execId });
      await task.delete({ id, execId });
      assert.equal(await out, `${text}over\n`);
    }
    await remove(task, id);
  });

  test('a terminal’s clients come and go, see what was written meanwhile, and the hang-up', async () => {
    const id = 'lines';
    const fifos = lab.fifos(id);
    const script = 'stty -echo; while read -r line; do echo "got $line"; done; echo "end $?"; stty size; exit 5';
    const { task } = await make(id, script, { stdin: fifos.stdin, stdout: fifos.stdout, terminal: true });
    await task.resizePty({ id, width: 77, height: 22 });
    typeInto(fifos.stdin, 'first\n');
    await sleep(100);
    typeInto(fifos.stdin, 'second\n');
    await sleep(100);
    const out = lab.read(fifos.stdout);
    typeInto(fifos.stdin, 'third\n\x04');
    assert.equal((await task.wait({ id })).exitStatus, 5);
    lab.letGo();
    await task.delete({ id });
    assert.match(await out, /got first\r\ngot second\r\ngot third\r\nend \d\r\n22 77\r\n$/);
  });

  test('a terminal that nobody reads takes many small pieces', async () => {
    const id = 'small';
    const { stdout } = lab.fifos(id);
    const script = 'stty -opost; i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; exit 6';
    const { task } = await make(id, script, { stdout, terminal: true });
    assert.equal((await task.wait({ id })).exitStatus, 6);
    const out = lab.read(stdout);
    await sleep(50);
    lab.letGo();
    await task.delete({ id });
    const numbers = (await out).trim().split('\n').map(Number);
    assert.deepEqual(
      numbers,
      Array.from({ length: 2000 }, (_, index) => index),
    );
  });

  test('without anybody who keeps descriptors: execs go on, an added one can be started, a closed input stays closed', async () => {
    const id = 'alone';
    const first = await make(id, 'sleep 1000');
    const running = lab.fifos('running');
    const closed = lab.fifos('closed');
    const out = lab.read(running.stdout);
    const script = 'trap "echo bye; exit 9" TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done';
    await exec(first.task, id, 'running', script, { stdout: running.stdout });
    await exec(first.task, id, 'closed', 'sleep 2; cat; exit 4', { stdin: closed.stdin });
    await first.task.closeIO({ id, execId: 'closed', stdin: true });
    const later = lab.fifos('later');
    await first.task.exec({
      id,
      execId: 'later',
      spec: lab.execSpec(['sh', '-c', 'echo late; exit 7']),
      ...noStdio,
      stdout: later.stdout,
    });
    await sleep(200);
    process.kill(first.shimPid, 'SIGKILL');
    await ended(first.shimPid, 3000);
    await out;
    await sleep(300);
    const again = lab.read(running.stdout);
    const { task } = await lab.start(id);
    const lateOut = lab.read(later.stdout);
    await task.start({ id, execId: 'later' });
    assert.equal((await task.wait({ id, execId: 'later' })).exitStatus, 7);
    await task.delete({ id, execId: 'later' });
    assert.ok([4, 255].includes((await task.wait({ id, execId: 'closed' })).exitStatus));
    await task.kill({ id, execId: 'running', signal: 15 });
    await task.wait({ id, execId: 'running' });
    lab.letGo();
    await task.delete({ id, execId: 'running' });
    assert.equal(await lateOut, 'late\n');
    const lines = ((await out) + (await again)).trim().split('\n');
    assert.equal(lines.pop(), 'bye');
    assert.deepEqual(
      lines.map(Number),
      Array.from({ length: lines.length }, (_, index) => index),
    );
    await remove(task, id);
  });
});

function lengthOfSequence(last: number): number {
  return Array.from({ length: last }, (_, index) => String(index + 1).length + 1).reduce(
    (sum, length) => sum + length,
    0,
  );
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
