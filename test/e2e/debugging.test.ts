// The debug socket of gantryd, and gantry-shim's, asked by our ctr, by containerd's, and by hand.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'the daemon needs root';
const [own, , theirs] = ctrClients();

interface Snapshot {
  snapshot: { meta: { node_fields: string[] }; node_count: number };
  nodes: number[];
  strings: string[];
}
interface Profile {
  nodes: { callFrame: { functionName: string } }[];
  samples: number[];
}

/** Ports on which a process listens, of all address families. */
function tcpListeners(pid: number): string[] {
  const inodes = new Set(['tcp', 'tcp6'].flatMap((name) => listening(`/proc/${pid}/net/${name}`)));
  const entries = readdirSync(`/proc/${pid}/fd`, { withFileTypes: true });
  return entries.flatMap(({ name }) => {
    try {
      const { ino } = statSync(`/proc/${pid}/fd/${name}`);
      return inodes.has(String(ino)) ? [name] : [];
    } catch {
      return [];
    }
  });
}

function listening(file: string): string[] {
  const lines = readFileSync(file, 'utf8').trim().split('\n').slice(1);
  return lines.map((line) => line.trim().split(/\s+/)).flatMap((cells) => (cells[3] === '0A' ? [cells[9]!] : []));
}

describe('asking daemon and shim what they do', { skip: skip || (own!.missing ?? false) }, () => {
  const temp = makeTempDir('debugging');
  const directory = path.join(temp.path, 'd');
  const socket = path.join(directory, 'debug.sock');
  // The CRI plugin has a port for streams, as containerd's has: here no port at all is expected.
  const daemon = new TestDaemon(
    directory,
    `[debug]\n  address = '${socket}'\n`,
    "disabled_plugins = ['io.containerd.grpc.v1.cri']",
  );
  const ctr = new CtrSession(own!, daemon.address, 'debugging');
  const released = path.join(temp.path, 'released');
  let shimSocket = '';
  let shimPid = 0;

  before(async () => {
    const { busybox } = await buildTestImages(path.join(temp.path, 'images'));
    const archive = path.join(temp.path, 'busybox.tar');
    await run('skopeo', [
      'copy',
      '-q',
      '--insecure-policy',
      `oci:${busybox}:latest`,
      `oci-archive:${archive}:x/busybox:1`,
    ]);
    // Daemon and shim are brought to spin by a signal that means nothing to them.
    const spinner = path.join(temp.path, 'spinner.mjs');
    writeFileSync(
      spinner,
      `import { existsSync } from 'node:fs';
       function spinsForEver() { while (!existsSync(${JSON.stringify(released)})) for (let i = 0, s = 0; i < 1e6; i++) s += Math.sqrt(i); }
       process.on('SIGPWR', spinsForEver);`,
    );
    process.env['NODE_OPTIONS'] = `--import=${spinner}`;
    await daemon.start();
    await ctr.ok('images', 'import', archive);
    await ctr.ok('run', '-d', 'x/busybox:1', 'web', 'sleep', '1000');
    delete process.env['NODE_OPTIONS'];
    const { bundle } = JSON.parse(await ctr.ok('shim', '--id', 'web', 'state')) as { bundle: string };
    const { address } = JSON.parse(readFileSync(path.join(bundle, 'bootstrap.json'), 'utf8')) as { address: string };
    shimSocket = address.replace('unix://', '');
    shimPid = (JSON.parse(await text(await ask(`${shimSocket}.c`, '/debug/vars'))) as { pid: number }).pid;
  });
  after(async () => {
    await ctr.try('tasks', 'rm', '-f', 'web');
    await daemon.stop();
    await temp.remove();
  });

  function ask(socketPath: string, url: string, method = 'GET'): Promise<http.IncomingMessage> {
    return new Promise((resolve, reject) => {
      http.request({ socketPath, path: url, method, agent: false }, resolve).on('error', reject).end();
    });
  }

  function checkSnapshot(json: string): void {
    const { snapshot, nodes, strings } = JSON.parse(json) as Snapshot;
    assert.equal(nodes.length, snapshot.node_count * snapshot.meta.node_fields.length);
    assert.ok(strings.length > 1000);
  }

  function checkProfile(json: string): void {
    const { nodes, samples } = JSON.parse(json) as Profile;
    assert.ok(samples.length > 0);
    assert.ok(nodes.some(({ callFrame }) => callFrame.functionName === '(root)'));
  }

  const ways: [string, () => string[], () => number][] = [
    ['the daemon', () => ['pprof', '-d', socket], () => daemon.pid],
    ['the shim of a container', () => ['shim', '--id', 'web', 'pprof'], () => shimPid],
    ['a shim by its address', () => ['shim', '--shim-address', `unix://${shimSocket}`, 'pprof'], () => shimPid],
  ];
  for (const [name, args, pid] of ways) {
    test(`ctr asks ${name} for everything`, async () => {
      checkSnapshot(await ctr.ok(...args(), 'heap'));
      checkProfile(await ctr.ok(...args(), 'profile', '--seconds', '200ms'));
      const stacks = await ctr.ok(...args(), 'stacks');
      assert.match(stacks, new RegExp(`^main thread \\(pid ${pid()}\\): answers`));
      assert.match(stacks, /^ {4}Server \/.*$/m);
      assert.match(stacks, new RegExp(`^${pid()} +[RS] +\\d`, 'm'));
      assert.match(await ctr.ok(...args(), 'threadcreate'), /^TID +STATE/);
      const { delay } = JSON.parse(await ctr.ok(...args(), 'block', '-s', '100ms')) as { delay: { max: number } };
      assert.ok(delay.max >= 0);
      const memory = JSON.parse(await ctr.ok(...args(), 'memory')) as { process: { rss: number } };
      assert.ok(memory.process.rss > 1e7);
      const trace = JSON.parse(await ctr.ok(...args(), 'trace', '-s', '100ms')) as { traceEvents: { pid: number }[] };
      assert.ok(trace.traceEvents.some((event) => event.pid === pid()));
    });
  }

  test('stacks tell the calls that are not answered yet, of daemon and shim', async () => {
    const waiting = spawn(own!.file, ctr.arguments(['tasks', 'attach', 'web']), { stdio: 'ignore' });
    try {
      const shown = (...args: string[]): Promise<string> =>
        eventually('the stacks show the call', async () => {
          const stacks = await ctr.ok(...args, 'stacks');
          return stacks.includes('/Wait in ') ? stacks : undefined;
        });
      assert.match(
        await shown('pprof', '-d', socket),
        /^ {4}call containerd\.services\.tasks\.v1\.Tasks\/Wait in "debugging" \(grpc\) for \d+\.\d s$/m,
      );
      assert.match(
        await shown('shim', '--id', 'web', 'pprof'),
        /^ {4}call containerd\.task\.v\d\.Task\/Wait in "debugging" \(ttrpc\) for \d+\.\d s$/m,
      );
    } finally {
      await endProcess(waiting, 'SIGKILL');
    }
  });

  test('containerd’s ctr asks the daemon', { skip: theirs!.missing ?? false }, async () => {
    const other = new CtrSession(theirs!, daemon.address, 'debugging');
    checkSnapshot(await other.ok('pprof', '-d', socket, 'heap'));
    checkProfile(await other.ok('pprof', '-d', socket, 'profile', '-s', '1s'));
    assert.match(await other.ok('pprof', '-d', socket, 'goroutines'), new RegExp(`pid ${daemon.pid}`));
    assert.match(await other.ok('pprof', '-d', socket, 'threadcreate'), /^TID/);
  });

  test('only root may ask, only for what there is, and no port is opened', async () => {
    for (const file of [socket, `${shimSocket}.c`]) {
      const { mode, uid } = statSync(file);
      assert.equal(mode & 0o777, 0o600);
      assert.equal(uid, 0);
      for (const [url, method, status] of [
        ['/', 'GET', 404],
        ['/json/version', 'GET', 404],
        ['/debug/pprof/heap', 'POST', 405],
        ['/debug/pprof/profile?seconds=forever', 'GET', 400],
        ['/debug/pprof/profile?thread=77&seconds=1', 'GET', 404],
      ] as const) {
        const answer = await ask(file, url, method);
        assert.equal(answer.statusCode, status, url);
        await text(answer);
      }
    }
    assert.deepEqual(tcpListeners(daemon.pid), []);
    assert.deepEqual(tcpListeners(shimPid), []);
  });

  test('a mistake is told', async () => {
    for (const [args, message] of [
      [['pprof', '-d', '/nonexistent/debug.sock', 'heap'], /no debug socket answers at \[\/nonexistent\/debug\.sock\]/],
      [['pprof', '-d', socket, 'profile', '-s', '1h'], /400 Bad Request: seconds=3600: expected a number up to 300/],
      [['pprof', '-d', socket, 'heap', '--thread', '99'], /404 Not Found: there is no thread 99/],
      [['shim', 'pprof', 'heap'], /shim ID \(--id\) or address \(--shim-address\) must be specified/],
      [['shim', '--id', 'nobody', 'pprof', 'heap'], /no debug socket answers at \[\/run\/containerd\/s\//],
    ] as const) {
      const { code, stdout, stderr } = await ctr.try(...args);
      assert.equal(code, 1);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    }
    // The shim's own protocol goes on as before.
    assert.match(await ctr.ok('run', '--rm', 'x/busybox:1', 'second', 'echo', 'still here'), /still here/);
  });

  test('a main thread that does not come back is found where it is, of daemon and shim', async () => {
    for (const [args, pid, log] of [
      [['pprof', '-d', socket], daemon.pid, daemon.logFile],
      [['shim', '--id', 'web', 'pprof'], shimPid, `${shimSocket}.log`],
    ] as const) {
      const watch = args[0] === 'pprof' ? `${socket}.watch` : `${shimSocket}.w`;
      assert.equal(statSync(watch).mode & 0o777, 0o600);
      // Snapshots, before, have held it up as well.
      const logged = (): string => readFileSync(log, 'utf8').split('spinsForEver').slice(1).join('');
      process.kill(pid, 'SIGPWR');
      await eventually(
        'it is in the log, with what it does',
        () => readFileSync(log, 'utf8').includes('spinsForEver') || undefined,
        60_000,
      );
      const address = args[0] === 'pprof' ? args : ['shim', '--shim-address', `unix://${shimSocket}`, 'pprof'];
      const { stdout, stderr } = await ctr.try(...address, 'stacks');
      assert.match(stderr, /the main thread does not answer; asking the thread that watches it/);
      assert.match(stdout, new RegExp(`^main thread \\(pid ${pid}\\): has not answered for \\d+`));
      assert.match(stdout, /^ {4}at spinsForEver \(/m);
      checkProfile(await ctr.ok(...address, 'profile', '--seconds', '200ms'));
      writeFileSync(released, '');
      await eventually('it answers again', () => logged().includes('main thread answers again') || undefined, 60_000);
      rmSync(released);
      assert.match(await ctr.ok(...args, 'stacks'), new RegExp(`^main thread \\(pid ${pid}\\): answers`));
    }
    assert.match(await ctr.ok('tasks', 'ls'), /web +\d+ +RUNNING/);
  });
});
