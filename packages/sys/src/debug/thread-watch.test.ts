import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const directory = mkdtempSync(path.join(tmpdir(), 'thread-watch-'));
const socket = path.join(directory, 'debug.sock.watch');
const released = path.join(directory, 'released');
/** Spins in a function with a name, when it is told to on standard input, until a file is there. */
const program = `
  import { existsSync } from 'node:fs';
  import { watchMainThread } from ${JSON.stringify(path.join(import.meta.dirname, 'thread-watch.ts'))};
  const close = await watchMainThread({ socket: ${JSON.stringify(socket)}, blockedAfterMs: 200, logFormat: 'json' });
  console.log('ready');
  function step() { for (let i = 0, sum = 0; i < 1e6; i++) sum += Math.sqrt(i); }
  function spinsForEver() { while (!existsSync(${JSON.stringify(released)})) step(); }
  process.stdin.on('data', (word) => {
    if (String(word) === 'spin') spinsForEver();
    else void close().then(() => process.exit(0));
  });
`;
const child = spawn(process.execPath, ['--disable-sigusr1', '--input-type=module', '-e', program]);
let said = '';
child.stderr.on('data', (chunk: Buffer) => {
  said += chunk.toString();
});
const ended = new Promise((resolve) => child.once('exit', resolve));

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !condition(); ) {
    if (Date.now() > end) assert.fail(`never; it said: ${said}`);
    await sleep(10);
  }
}

async function get(url: string): Promise<string> {
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    http.get({ socketPath: socket, path: url, agent: false }, resolve).on('error', reject);
  });
  const body = await text(response);
  assert.equal(response.statusCode, 200, body);
  return body;
}

before(async () => {
  const ready = new Promise((resolve) => child.stdout.once('data', resolve));
  assert.notEqual(await Promise.race([ready, ended.then(() => 'ended')]), 'ended', said);
});
after(async () => {
  child.kill('SIGKILL');
  await ended;
  rmSync(directory, { recursive: true });
});

test('a main thread at rest is told to be so, on a socket of its user’s alone', async () => {
  assert.equal(statSync(socket).mode & 0o777, 0o600);
  // It may be met while it answers what it was just asked.
  let told = '';
  for (const end = Date.now() + 60_000; !told.includes('    at rest\n') && Date.now() < end; await sleep(10))
    told = await get('/debug/pprof/goroutine');
  assert.match(told, /^main thread \(pid \d+\): answers\n {4}at rest\n/);
});

test('one that does not come back is found where it is, profiled, and told of once', async () => {
  // A machine that is busy enough may have held it up before.
  said = '';
  child.stdin.write('spin');
  await until(() => said.includes('spinsForEver'));
  const stacks = await get('/debug/pprof/goroutine');
  assert.match(stacks, /^main thread \(pid \d+\): has not answered for \d+\.\d s\n/);
  assert.match(stacks, /^ {4}at spinsForEver \(/m);
  assert.match(stacks, /^\d+ +R +/m);
  const profile = JSON.parse(await get('/debug/pprof/profile?seconds=0.3')) as {
    nodes: { callFrame: { functionName: string } }[];
  };
  assert.ok(profile.nodes.some(({ callFrame }) => /^(step|spinsForEver)$/.test(callFrame.functionName)));
  await assert.rejects(get('/debug/pprof/heap'), /the main thread does not answer/);
  writeFileSync(released, '');
  await until(() => said.slice(said.indexOf('spinsForEver')).includes('main thread answers again'));
  const lines = said
    .trim()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as { level: string; msg: string; stack?: string; blocked_ms: number });
  const at = lines.findIndex(({ stack }) => stack?.includes('spinsForEver'));
  const [blocked, again] = lines.slice(at);
  assert.deepEqual([blocked!.level, blocked!.msg], ['warning', 'main thread is blocked']);
  assert.deepEqual([again!.level, again!.msg], ['warning', 'main thread answers again']);
  assert.ok(blocked!.blocked_ms >= 200 && again!.blocked_ms >= blocked!.blocked_ms);
  assert.match(await get('/debug/pprof/goroutine'), /: answers\n/);
});

test('its socket goes with it', async () => {
  child.stdin.write('end');
  assert.equal(await ended, 0);
  assert.ok(!existsSync(socket));
});
