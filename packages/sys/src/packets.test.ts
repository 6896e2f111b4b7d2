import assert from 'node:assert/strict';
import { closeSync, fstatSync, mkdtempSync, readdirSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { listenPackets, PacketSocket, packetFdsMax } from './packets.ts';
import { pipe2 } from './pipes.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

/** Packets as one side got them, and a promise for the moment when there are so many. */
class Inbox {
  readonly packets: { text: string; fds: number[] }[] = [];
  isGone = false;
  #wake: () => void = () => {};

  packet(data: Buffer, fds: number[]): void {
    this.packets.push({ text: data.toString(), fds });
    this.#wake();
  }

  gone(): void {
    this.isGone = true;
    this.#wake();
  }

  async until(condition: () => boolean): Promise<void> {
    // The sockets keep no process alive.
    const alive = setInterval(() => {}, 1000);
    while (!condition()) await new Promise<void>((resolve) => (this.#wake = resolve));
    clearInterval(alive);
  }
}

async function pair(): Promise<{
  client: PacketSocket;
  server: PacketSocket;
  atClient: Inbox;
  atServer: Inbox;
  end(): void;
}> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-sys-packets-'));
  const file = path.join(directory, 's');
  const [atClient, atServer] = [new Inbox(), new Inbox()];
  const { promise, resolve } = Promise.withResolvers<PacketSocket>();
  const listening = listenPackets(file, (fd) => resolve(new PacketSocket(fd, atServer)));
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const alive = setInterval(() => {}, 1000);
  const client = PacketSocket.connect(file, atClient);
  const server = await promise;
  clearInterval(alive);
  const end = () => {
    client.close();
    server.close();
    listening.close();
    assert.deepEqual(readdirSync(directory), []);
    rmSync(directory, { recursive: true });
  };
  return { client, server, atClient, atServer, end };
}

test('packets stay whole and bring their descriptors', async () => {
  const { client, server, atClient, atServer, end } = await pair();
  const [read, write] = pipe2();
  client.send(Buffer.from('one'), [read, write]);
  client.send(Buffer.from('two'));
  server.send(Buffer.from('three'), [read]);
  assert.throws(() => server.send(Buffer.from('four'), new Array(packetFdsMax + 1).fill(read)), RangeError);
  closeSync(read);
  closeSync(write);
  await atServer.until(() => atServer.packets.length === 2);
  await atClient.until(() => atClient.packets.length === 1);
  assert.deepEqual(
    atServer.packets.map(({ text, fds }) => [text, fds.length]),
    [
      ['one', 2],
      ['two', 0],
    ],
  );
  writeSync(atServer.packets[0]!.fds[1]!, 'through');
  const buffer = Buffer.alloc(10);
  assert.equal(readSync(atClient.packets[0]!.fds[0]!, buffer), 7);
  for (const { fds } of [...atServer.packets, ...atClient.packets]) for (const fd of fds) closeSync(fd);
  end();
});

test('a peer that does not read gets everything later, and no descriptor stays behind', async () => {
  const { client, server, atClient, atServer, end } = await pair();
  const before = descriptors();
  const [read, write] = pipe2();
  // Nothing is received before this function lets the event loop turn.
  for (let index = 0; index < 2000; index++) {
    client.send(Buffer.from('the other way'.padEnd(200)));
    server.send(Buffer.from(`${index} `.padEnd(200)), index % 100 === 0 ? [read] : []);
  }
  await atClient.until(() => atClient.packets.length === 2000);
  await atServer.until(() => atServer.packets.length === 2000);
  assert.ok(atClient.packets.every(({ text }, index) => Number(text) === index));
  const got = atClient.packets.flatMap(({ fds }) => fds);
  assert.equal(got.length, 20);
  assert.ok(got.every((fd) => fstatSync(fd).isFIFO()));
  for (const fd of [...got, read, write]) closeSync(fd);
  assert.equal(descriptors(), before);
  client.send(Buffer.from('still'));
  end();
});

test('the end of one side is told to the other', async () => {
  const { client, server, atServer, end } = await pair();
  client.close();
  await atServer.until(() => atServer.isGone);
  assert.equal(server.open, false);
  server.send(Buffer.from('nobody'));
  end();
});

test('nobody there', () => {
  assert.throws(() => PacketSocket.connect('/nonexistent/socket', new Inbox()), { code: 'ENOENT' });
});
