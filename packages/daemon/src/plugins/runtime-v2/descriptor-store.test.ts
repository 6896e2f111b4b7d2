import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DescriptorAnswer } from '@gantry/api';
import { close, PacketSocket, POLL, pidfdOpen, pipe2, poll } from '@gantry/sys';
import type { Logger } from '../../core/log/logger.ts';
import { DescriptorStore } from './descriptor-store.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'gantry-kept-'));
after(() => rmSync(directory, { recursive: true }));
const log = { debug() {}, info() {}, warn() {}, error() {} } as unknown as Logger;
const open = () => readdirSync('/proc/self/fd').length;
let stores = 0;

/** A shim's side of the socket. */
class Shim {
  readonly answers: { message: DescriptorAnswer; fds: number[] }[] = [];
  readonly socket: PacketSocket;

  constructor(store: DescriptorStore) {
    this.socket = PacketSocket.connect(store.path, {
      packet: (data, fds) => this.answers.push({ message: JSON.parse(data.toString()), fds }),
      gone: () => {},
    });
  }

  send(request: unknown, fds: number[] = []): void {
    this.socket.send(Buffer.from(JSON.stringify(request)), fds);
  }

  async take(id: string): Promise<{ message: DescriptorAnswer; fds: number[] }[]> {
    this.send({ take: { namespace: 'n', id } });
    await until(() => this.answers.some(({ message }) => message.taken?.id === id));
    return this.answers.splice(0).filter(({ message }) => message.kept);
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !condition(); await sleep(5))
    assert.ok(Date.now() < end, 'not within a minute');
}

function listen(): DescriptorStore {
  return DescriptorStore.listen(path.join(directory, `s${stores++}`), log);
}

test('what is kept is given to the next shim, again and again, and dropped when it is told', async () => {
  const before = open();
  const store = listen();
  const first = new Shim(store);
  const [read, write] = pipe2();
  first.send({ keep: { namespace: 'n', id: 'c', exec: '', kinds: ['stdout', 'stdin'] } }, [read, write]);
  first.send({ keep: { namespace: 'n', id: 'c', exec: 'e', kinds: ['stdin'] } }, [write]);
  first.send({ keep: { namespace: 'other', id: 'c', exec: '', kinds: ['stdin'] } }, [write]);
  await until(() => store.size === 4);
  close(read);
  close(write);
  first.socket.close();
  const second = new Shim(store);
  for (let turn = 0; turn < 2; turn++) {
    const kept = await second.take('c');
    assert.deepEqual(
      kept.map(({ message, fds }) => [message.kept?.exec, message.kept?.kinds, fds.length]),
      [
        ['', ['stdout', 'stdin'], 2],
        ['e', ['stdin'], 1],
      ],
    );
    for (const { fds } of kept) for (const fd of fds) close(fd);
  }
  // What is given again takes the place of what was there.
  const [other] = pipe2();
  second.send({ keep: { namespace: 'n', id: 'c', exec: '', kinds: ['terminal'] } }, [other]);
  await until(() => store.size === 3);
  second.send({ drop: { namespace: 'n', id: 'c', exec: 'e' } });
  await until(() => store.size === 2);
  store.drop('n', 'c');
  assert.equal(store.size, 1);
  assert.deepEqual(await second.take('c'), []);
  second.socket.close();
  store.close();
  // The two ends of the pipe that this test made last.
  assert.equal(open(), before + 2);
});

test('nonsense is refused, and leaves no descriptor', async () => {
  const store = listen();
  const shim = new Shim(store);
  const [read] = pipe2();
  assert.deepEqual(await shim.take('c'), []);
  const before = open();
  shim.socket.send(Buffer.from('not JSON'), [read]);
  shim.send({ keep: { namespace: 'n', id: 'c', exec: '', kinds: ['stdin', 'stdout'] } }, [read]);
  shim.send({ keep: { namespace: 'n' } }, [read]);
  shim.send({ what: 1 }, [read, read]);
  shim.send({ drop: { namespace: 'n', id: 'none' } }, [read]);
  assert.deepEqual(await shim.take('c'), []);
  assert.deepEqual([store.size, open()], [0, before]);
  shim.socket.close();
  store.close();
});

test('while no shim is there the time of an exit is noted', async () => {
  const store = listen();
  const shim = new Shim(store);
  const child = spawn('sleep', ['1000']);
  await once(child, 'spawn');
  const pidfd = pidfdOpen(child.pid!);
  shim.send({ keep: { namespace: 'n', id: 'c', exec: '', kinds: ['pidfd'] } }, [pidfd]);
  await until(() => store.size === 1);
  shim.socket.close();
  await sleep(20);
  const killed = Date.now();
  child.kill('SIGKILL');
  await until(() => poll([{ fd: pidfd, events: POLL.IN }])[0] !== 0);
  await sleep(50);
  const [kept] = await new Shim(store).take('c');
  const at = Number(kept?.message.kept?.exitedAt?.seconds) * 1000 + (kept?.message.kept?.exitedAt?.nanos ?? 0) / 1e6;
  assert.ok(Math.abs(at - killed) < 10_000, `told to have ended ${at - killed} ms after it was killed`);
  for (const fd of [...(kept?.fds ?? []), pidfd]) close(fd);
  store.close();
});
