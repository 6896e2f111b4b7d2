import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import http, { type IncomingMessage } from 'node:http';
import { url as inspectorUrl } from 'node:inspector';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { debugListener } from './debug-http.ts';

const eventLoopSource = `
  const { parentPort } = require('node:worker_threads');
  parentPort.on('message', () => {});
  parentPort.postMessage('ready');
`;
const busySource = `
  const { parentPort, workerData } = require('node:worker_threads');
  const end = new Int32Array(workerData);
  parentPort.postMessage('ready');
  function step(n) {
    let sum = 0;
    for (let i = 0; i < 1e6; i++) sum += Math.sqrt(n + i);
    return sum;
  }
  function countsForEver() {
    for (let n = 0; Atomics.load(end, 0) === 0; n++) step(n);
  }
  countsForEver();
`;
const blockedSource = `
  const { parentPort, workerData } = require('node:worker_threads');
  parentPort.postMessage('ready');
  require('node:fs').openSync(workerData, 'r');
`;

describe('the debug socket', () => {
  const server = http.createServer(
    debugListener({ variables: () => ({ answer: 42 }), activities: () => ['of a friend'] }),
  );
  const end = new SharedArrayBuffer(4);
  const workers: Worker[] = [];

  const directory = mkdtempSync(path.join(tmpdir(), 'debug-http-'));
  const fifo = path.join(directory, 'fifo');
  let waits: Worker | undefined;

  async function work(name: string, source: string, workerData: unknown = end): Promise<Worker> {
    const worker = new Worker(source, { eval: true, name, workerData });
    workers.push(worker);
    await new Promise((resolve) => worker.once('message', resolve));
    return worker;
  }

  before(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  after(async () => {
    Atomics.store(new Int32Array(end), 0, 1);
    // Ends the wait of the one that opens it.
    if (waits) closeSync(openSync(fifo, 'r+'));
    await Promise.all(workers.map((worker) => worker.terminate()));
    server.close();
    server.closeAllConnections();
    rmSync(directory, { recursive: true });
  });

  function request(path: string, method = 'GET', signal?: AbortSignal): Promise<IncomingMessage> {
    const { port } = server.address() as AddressInfo;
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port, path, method, agent: false as const, ...(signal && { signal }) };
      http.request(options, resolve).on('error', reject).end();
    });
  }

  async function get(path: string): Promise<string> {
    const response = await request(path);
    const body = await text(response);
    assert.equal(response.statusCode, 200, body);
    return body;
  }

  test('tells stacks: of a worker that computes, one at rest, and one that does not answer', async () => {
    const busy = await work('counts', busySource);
    const idle = await work('waits', eventLoopSource);
    execFileSync('mkfifo', [fifo]);
    const blocked = await work('blocked', blockedSource, fifo);
    waits = blocked;
    const said = await get('/debug/pprof/goroutine?debug=2');
    const part = (worker: Worker): string =>
      said.split('\n\n').find((block) => block.startsWith(`thread ${worker.threadId}:`)) ?? '';
    assert.match(part(busy), /counts\n(?: {4}at step \(.*\n)? {4}at countsForEver \(/);
    assert.match(part(idle), /waits\n {4}at rest$/);
    assert.match(part(blocked), /blocked\n {4}no stack: /);
    assert.match(said, new RegExp(`^main thread \\(pid ${process.pid}\\)`));
    assert.match(said, /^ {4}call of a friend$/m);
    assert.match(said, /^ {4}Server 127\.0\.0\.1:\d+$/m);
    assert.match(said, /^ {4}Socket 127\.0\.0\.1:\d+ fd \d+, \d+ bytes read/m);
    assert.match(said, new RegExp(`^${process.pid} +[RS] `, 'm'));
    // What was stopped goes on: its second stack is read as its first was.
    assert.match(await get('/debug/pprof/goroutine'), /at countsForEver/);
  });

  test('profiles the main thread and a worker', async () => {
    const main = JSON.parse(await get('/debug/pprof/profile?seconds=0.2')) as { nodes: object[]; samples: number[] };
    assert.ok(main.nodes.length > 0 && main.samples.length > 0);
    const worker = workers.find(({ threadName }) => threadName === 'counts')!;
    const there = await get(`/debug/pprof/profile?seconds=0.2&thread=${worker.threadId}`);
    // What V8 has compiled into its caller is named after that.
    assert.match(there, /"url":"\[worker eval\]"/);
  });

  test('heap snapshots leave neither file nor descriptor', async () => {
    const worker = workers.find(({ threadName }) => threadName === 'waits')!;
    for (const query of ['', `?thread=${worker.threadId}`]) {
      const snapshot = JSON.parse(await get(`/debug/pprof/heap${query}`)) as {
        snapshot: { meta: object; node_count: number };
        nodes: number[];
      };
      assert.ok(snapshot.snapshot.meta);
      assert.ok(snapshot.snapshot.node_count > 1000);
      assert.ok(snapshot.nodes.length > snapshot.snapshot.node_count);
    }
    const open = (): string[] =>
      readdirSync('/proc/self/fd').flatMap((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`);
        } catch {
          return [];
        }
      });
    // The client has all of it a moment before the descriptor is closed.
    while (open().some((name) => name.includes('gantry-heap-'))) await setImmediate();
    assert.deepEqual(
      readdirSync(tmpdir()).filter((name) => name.startsWith(`gantry-heap-${process.pid}-`)),
      [],
    );
  });

  test('tells how late the event loop is', async () => {
    const answer = get('/debug/pprof/block?seconds=1');
    const block = setInterval(() => {
      const until = performance.now() + 150;
      while (performance.now() < until);
    }, 200);
    const said = JSON.parse(await answer) as { delay: Record<string, number>; utilization: number };
    clearInterval(block);
    assert.ok(said.delay['max']! >= 100, JSON.stringify(said));
    assert.ok(said.delay['p50']! <= said.delay['max']!);
    assert.ok(said.utilization > 0.1);
  });

  test('tells memory, threads, a trace, the variables and what there is', async () => {
    const memory = JSON.parse(await get('/debug/memory')) as {
      process: NodeJS.MemoryUsage;
      kernel: Record<string, number>;
      workers: { title: string; heap?: { usedSize: number } }[];
    };
    assert.ok(memory.kernel['Rss']! > memory.process.heapUsed);
    // With gc=1 what nobody has any more goes first.
    const dropped = new WeakRef({});
    await get('/debug/memory?gc=1');
    assert.equal(dropped.deref(), undefined);
    assert.ok(memory.workers.some(({ title, heap }) => title.includes('waits') && heap!.usedSize > 0));
    assert.match(await get('/debug/pprof/threadcreate'), /^TID +STATE +CPU \(s\) +NAME +WAITS IN\n\d+/);
    const { traceEvents } = JSON.parse(await get('/debug/pprof/trace?seconds=0.1')) as { traceEvents: object[] };
    assert.ok(traceEvents.length > 0);
    assert.deepEqual(JSON.parse(await get('/debug/vars')), { answer: 42 });
    assert.match(await get('/debug/pprof/'), /^\/debug\/pprof\/heap +snapshot/m);
  });

  test('refuses what it does not know', async () => {
    for (const [path, method, status] of [
      ['/', 'GET', 404],
      ['/debug', 'GET', 404],
      ['/debug/pprof/constructor', 'GET', 404],
      ['/debug/pprof/heap', 'POST', 405],
      ['/debug/vars', 'DELETE', 405],
      ['/debug/pprof/profile?seconds=x', 'GET', 400],
      ['/debug/pprof/profile?seconds=-1', 'GET', 400],
      ['/debug/pprof/trace?seconds=1e9', 'GET', 400],
      ['/debug/pprof/heap?thread=main', 'GET', 400],
      ['/debug/pprof/heap?thread=99999', 'GET', 404],
      ['/debug/pprof/profile?thread=99999&seconds=1', 'GET', 404],
    ] as const) {
      const response = await request(path, method);
      assert.equal(response.statusCode, status, `${method} ${path}`);
      await text(response);
    }
  });

  test('one profile at a time, and none for a client that has gone', async () => {
    const leaving = new AbortController();
    const first = request('/debug/pprof/profile?seconds=300', 'GET', leaving.signal).then(
      () => 'answered',
      () => 'left',
    );
    // Asked until the first has come in.
    const status = async (): Promise<number> => {
      const response = await request('/debug/pprof/trace?seconds=0.01');
      await text(response);
      return response.statusCode!;
    };
    while ((await status()) !== 409);
    leaving.abort();
    assert.equal(await first, 'left');
    while ((await status()) !== 200);
  });

  test('no inspector listens', () => assert.equal(inspectorUrl(), undefined));
});
