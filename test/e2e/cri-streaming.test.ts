// Exec, attach and port-forward: crictl speaks SPDY and WebSocket as the kubelet does.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { CriLab, crictl } from '../lib/cri-lab.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { Terminal } from '../lib/terminal.ts';

describe('exec, attach and port-forward by crictl', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('stream');
  const lab = new CriLab(temp.path, { bridge: 'gantrystream0', subnet: '10.225.0.0/24' });
  const endpoint = ['--runtime-endpoint', `unix://${lab.daemon.address}`];
  let pod = '';
  let shell = '';

  before(async () => {
    await lab.start();
    await lab.ok('pull', 'busybox:1');
    const config = lab.pod('streams');
    pod = await lab.ok('runp', config);
    const start = async (name: string, command: string[], more: object = {}) => {
      const id = await lab.ok('create', pod, lab.container(name, command, more), config);
      await lab.ok('start', id);
      return id;
    };
    shell = await start('main', ['sleep', '100000']);
    await start('echoer', ['sh', '-c', 'while read line; do echo "got $line"; echo "err $line" >&2; done'], {
      stdin: true,
    });
    await start('terminal', ['sh'], { stdin: true, tty: true });
    await start('web', ['busybox', 'httpd', '-f', '-p', '8080', '-h', '/bin']);
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  const idOf = (name: string) => lab.ok('ps', '-q', '--name', `^${name}$`);
  const inShell = (line: string, input: string | undefined, ...flags: string[]) =>
    run('sh', ['-c', `${crictl} ${endpoint.join(' ')} exec ${flags.join(' ')} ${shell} ${line}`], {
      mayFail: true,
      ...(input !== undefined && { input }),
    });

  for (const transport of ['spdy', 'websocket']) {
    const way = ['--transport', transport];

    test(`${transport}: output, errors, exit codes`, async () => {
      const both = await inShell(`sh -c 'echo out; echo err >&2'`, undefined, ...way);
      assert.deepEqual(
        { ...both, stderr: both.stderr.split('\n').filter((line) => line === 'err') },
        {
          code: 0,
          stdout: 'out\n',
          stderr: ['err'],
        },
      );
      const failed = await inShell(`sh -c 'echo last words; exit 7'`, undefined, ...way);
      assert.equal(failed.stdout, 'last words\n');
      assert.match(failed.stderr, /exit code 7|exit status 7|non-zero exit code/);
      assert.notEqual(failed.code, 0);
      const missing = await inShell('no-such-program', undefined, ...way);
      assert.notEqual(missing.code, 0);
      assert.match(missing.stderr, /no-such-program.*not found/);
    });

    test(`${transport}: megabytes in and out, and the end of input`, async () => {
      const file = path.join(temp.path, 'random');
      const bytes = randomBytes(6 << 20);
      writeFileSync(file, bytes);
      const { stdout } = await inShell(`cat < ${file} | sha256sum`, undefined, '-i', ...way);
      assert.equal(stdout.split(' ')[0], createHash('sha256').update(bytes).digest('hex'));
    });

    test(`${transport}: a terminal and its size`, async () => {
      const terminal = new Terminal(crictl, [...endpoint, 'exec', '-it', ...way, shell, 'sh']);
      await terminal.expect('# ');
      terminal.type('while [ "$(stty size)" != "40 100" ]; do :; done; echo first"-"size\n');
      await terminal.expect('first-size');
      terminal.resize({ rows: 33, cols: 77 });
      terminal.type('while [ "$(stty size)" != "33 77" ]; do :; done; echo new"-"size; tty\n');
      await terminal.expect('new-size');
      await terminal.expect('/dev/pts/');
      terminal.type('exit 0\n');
      assert.equal(await terminal.end(), 0);
    });

    test(`${transport}: attach to streams, leave, come back`, async () => {
      const id = await idOf('echoer');
      for (const word of ['one', 'two']) {
        const child = spawn(crictl, [...endpoint, 'attach', '-i', ...way, id]);
        const shown = { out: '', err: '' };
        child.stdout.setEncoding('utf8').on('data', (text: string) => (shown.out += text));
        child.stderr.setEncoding('utf8').on('data', (text: string) => (shown.err += text));
        child.stdin.write(`${transport} ${word}\n`);
        await eventually('the answers came', () =>
          shown.out.includes(`got ${transport} ${word}\n`) && shown.err.includes(`err ${transport} ${word}\n`)
            ? true
            : undefined,
        );
        await endProcess(child, 'SIGKILL');
      }
      assert.equal((await lab.json<{ status: { state: string } }>('inspect', id)).status.state, 'CONTAINER_RUNNING');
    });

    test(`${transport}: attach to a terminal`, async () => {
      const terminal = new Terminal(crictl, [...endpoint, 'attach', '-it', ...way, await idOf('terminal')]);
      terminal.type(`\necho he"ll"o; while [ "$(stty size)" != "40 100" ]; do :; done; echo si"zed"\n`);
      await terminal.expect('hello');
      await terminal.expect('sized');
      terminal.kill();
      await terminal.end();
    });

    test(`${transport}: ports, many connections at once, and a port where nobody listens`, async () => {
      const forward = spawn(crictl, [...endpoint, 'port-forward', ...way, pod, ':8080', ':81']);
      let said = '';
      for (const stream of [forward.stdout, forward.stderr])
        stream.setEncoding('utf8').on('data', (text: string) => (said += text));
      try {
        const local = (port: number) =>
          eventually('it listens', () => new RegExp(`from 127\\.0\\.0\\.1:(\\d+) -> ${port}\\n`).exec(said)?.[1]).then(
            Number,
            (error) => assert.fail(`${error}: ${said}`),
          );
        const [open, closed] = [await local(8080), await local(81)];
        const program = readFileSync('/bin/busybox');
        const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
        const got = await Promise.all(Array.from({ length: 8 }, () => get(open)));
        for (const body of got) assert.equal(digest(body), digest(program));
        await assert.rejects(get(closed));
        await eventually('it says why', () => /error forwarding port 81 to pod/.test(said) || undefined);
      } finally {
        await endProcess(forward as ChildProcess, 'SIGKILL');
      }
    });
  }

  test('a command ends when its client goes', async () => {
    const child = spawn(crictl, [...endpoint, 'exec', shell, 'sh', '-c', 'echo $$ > /tmp/pid; sleep 4321']);
    await eventually('it runs', async () => (await sleepers()).length === 1 || undefined);
    await endProcess(child, 'SIGKILL');
    await eventually('it was killed', async () => (await sleepers()).length === 0 || undefined);
  });

  test('a URL is good once, and for what it was asked', async () => {
    const child = spawn(crictl, ['--debug', ...endpoint, 'exec', shell, 'true']);
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    await once(child, 'exit');
    const url = /http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]+/.exec(said)?.[0] ?? assert.fail(`no URL in ${said}`);
    assert.equal(await statusOf(url), 404);
    assert.equal(await statusOf(url.replace('exec', 'attach')), 404);
    assert.equal(await statusOf(url.replace(/exec.*/, 'other')), 404);
  });

  /** Processes of the long sleep, on the host. */
  async function sleepers(): Promise<string[]> {
    return readdirSync('/proc').filter((pid) => {
      const file = `/proc/${pid}/cmdline`;
      try {
        return /^\d+$/.test(pid) && existsSync(file) && readFileSync(file, 'utf8') === ['sleep', '4321', ''].join('\0');
      } catch {
        return false;
      }
    });
  }
});

async function get(port: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  http
    .get({ host: '127.0.0.1', port, path: '/busybox', agent: false }, (response) =>
      buffer(response).then(resolve, reject),
    )
    .on('error', reject);
  return promise;
}

function statusOf(url: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  http.get(url, (response) => resolve(response.resume().statusCode ?? 0)).on('error', reject);
  return promise;
}
