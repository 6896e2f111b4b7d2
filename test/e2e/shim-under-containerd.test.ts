// gantry-shim as the shim of other daemons: Debian's containerd 1.6 and containerd 2.3.4, driven by their own ctr.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { Shim } from '@gantry/client';
import { type CtrClient, CtrSession } from '../lib/clients.ts';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { bin } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

process.env['CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS'] = '1';
const root = process.getuid?.() === 0 ? false : 'containers need root';
const image = 'x/busybox:1';
const namespace = 'peers';

const peers = [
  { version: 1.6, containerd: '/usr/bin/containerd' },
  { version: 2.3, containerd: containerd2 },
];

for (const { version, containerd } of peers) {
  describe(`gantry-shim under containerd ${version}`, { skip: root || TestContainerd.missing(containerd) }, () => {
    const temp = makeTempDir(`peer${version}`);
    const sockets = path.join(temp.path, 's');
    // Found by name: containerd-shim-gantry-v1 on the daemon's PATH.
    const programs = path.join(temp.path, 'bin');
    const env = {
      PATH: `${programs}:${process.env['PATH']}`,
      GANTRY_SHIM_SOCKET_DIR: sockets,
      GANTRY_SHIM_LINGER_MS: '200',
    };
    const config = version < 2 ? '' : `[plugins.'io.containerd.shim.v1.manager']\n  socket_dir = '${sockets}'\n`;
    const daemon = new TestContainerd(path.join(temp.path, 'd'), containerd, env, config);
    const file = path.join(path.dirname(containerd), 'ctr');
    const client: CtrClient = { name: 'ctr', file, pullFlags: [], transfer: false, own: false };
    const ctr = new CtrSession(client, daemon.address, namespace);
    const bundles = path.join(daemon.directory, 'state/io.containerd.runtime.v2.task', namespace);
    const byName = ['run', '--runtime', 'io.containerd.gantry.v1'];
    const byPath = ['run', '--runtime', bin.shim];
    const sleeper = ['sh', '-c', 'trap "exit 5" TERM; while :; do sleep 0.1; done'];
    let events: ReturnType<typeof spawn>;
    let seen = '';

    before(async () => {
      await run('mkdir', ['-p', programs]);
      symlinkSync(bin.shim, path.join(programs, 'containerd-shim-gantry-v1'));
      // The same with a process for each group: what a daemon cannot say by an option it says by the environment.
      writeFileSync(
        path.join(programs, 'containerd-shim-grouped-v1'),
        `#!/bin/sh\nGANTRY_SHIM_GROUPING=sandbox\nexport GANTRY_SHIM_GROUPING\nexec '${bin.shim}' "$@"\n`,
        { mode: 0o755 },
      );
      const archive = await busyboxArchive(temp.path, image);
      await daemon.start();
      await ctr.ok('images', 'import', archive);
      await listen();
    });

    after(async () => {
      await endProcess(events);
      await daemon.stop();
      await temp.remove();
    });

    async function listen(): Promise<void> {
      const child = spawn(file, ctr.arguments(['events']), { stdio: ['ignore', 'pipe', 'ignore'] });
      child.stdout.setEncoding('utf8').on('data', (more: string) => {
        seen += more;
      });
      events = child;
      const before = seen.length;
      await eventually('events are listened to', async () => {
        await ctr.ok('namespaces', 'label', namespace, 'probe=1');
        return seen.slice(before).includes('/namespaces/update') || undefined;
      });
    }

    function event(topic: string, ...parts: string[]): Promise<true> {
      return eventually(`${topic} ${parts.join(' ')}`, () => {
        const found = seen.split('\n').some((line) => [` ${topic} `, ...parts].every((part) => line.includes(part)));
        return found || undefined;
      });
    }

    async function tasks(): Promise<Record<string, { pid: number; state: string }>> {
      const rows = (await ctr.ok('tasks', 'ls')).trim().split('\n').slice(1);
      return Object.fromEntries(
        rows.map((row) => {
          const [id, pid, state] = row.split(/\s+/);
          return [id!, { pid: Number(pid), state: state! }];
        }),
      );
    }

    async function shimOf(id: string): Promise<number> {
      const status = readFileSync(`/proc/${(await tasks())[id]!.pid}/status`, 'utf8');
      const pid = Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]);
      assert.match(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), /^gantry-shim /);
      return pid;
    }

    const isAlive = (pid: number) =>
      existsSync(`/proc/${pid}/stat`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

    /** Ends a container, and sees that the daemon knows how. */
    async function end(id: string): Promise<void> {
      await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', id);
      await eventually(`${id} ends`, async () => ((await tasks())[id]!.state === 'STOPPED' ? true : undefined));
      assert.match((await ctr.try('tasks', 'rm', id)).stderr, /137/);
      await ctr.ok('containers', 'rm', id);
    }

    async function nothingLeft(): Promise<void> {
      await eventually('the shims are gone, with their files', () =>
        readdirSync(sockets).length === 0 ? true : undefined,
      );
      assert.deepEqual(existsSync(bundles) ? readdirSync(bundles) : [], []);
      assert.deepEqual(mountsBeneath(daemon.directory), []);
    }

    test('is found by name and by path; output, exit codes, errors of the runtime', async () => {
      const script = ['sh', '-c', 'echo out; echo err >&2; exit 7'];
      for (const [index, by] of [byName, byPath].entries()) {
        const { stdout, stderr, code } = await ctr.try(...by, '--rm', image, `r${index}`, ...script);
        assert.deepEqual([stdout, stderr, code], ['out\n', 'err\n', 7]);
      }
      const wrong = await ctr.try(...byName, '--rm', image, 'r3', '/nope');
      assert.match(wrong.stderr, /failed to create shim task: OCI runtime create failed: .*"\/nope"/);
      const big = await ctr.ok(...byName, '--rm', image, 'r4', 'dd', 'if=/dev/zero', 'bs=1M', 'count=8');
      assert.equal(big.length, 8 << 20);
    });

    test('answers start in the form that this daemon reads, and its log comes out in the daemon’s', async () => {
      await ctr.ok(...byName, '-d', image, 'd1', ...sleeper);
      const told = (name: string) => readFileSync(path.join(bundles, 'd1', name), 'utf8');
      if (version < 2) assert.match(told('address'), new RegExp(`^unix://${sockets}/\\w+$`));
      else {
        const { version: api, protocol, address } = JSON.parse(told('bootstrap.json'));
        assert.deepEqual([api, protocol], [3, 'ttrpc']);
        assert.match(address, new RegExp(`^unix://${sockets}/\\w+$`));
      }
      await eventually('the log of the shim', () => (/msg="?shim serves/.test(daemon.log()) ? true : undefined));
    });

    test('exec, attach, terminals, pause and resume, metrics; events arrive; one process for all', async () => {
      await ctr.ok(...byName, '-d', image, 'd2', ...sleeper);
      assert.equal(await shimOf('d1'), await shimOf('d2'));
      const exec = ['tasks', 'exec', '--exec-id'];
      const ran = await ctr.try(...exec, 'e1', 'd1', 'sh', '-c', 'echo from exec; exit 3');
      assert.deepEqual([ran.stdout, ran.code], ['from exec\n', 3]);
      const terminal = await ctr.onTerminal('', ...exec, 'e2', '-t', 'd1', 'sh', '-c', 'tty; stty size');
      assert.match(terminal.stdout, /\/dev\/pts\/\d/);
      assert.match((await ctr.onTerminal('', ...byName, '--rm', '-t', image, 't1', 'tty')).stdout, /\/dev\/pts\/\d/);
      // ctr forgets an end of input that comes before its process runs.
      const piped = spawn(file, ctr.arguments([...exec, 'e3', 'd1', 'cat']), { stdio: ['pipe', 'pipe', 'ignore'] });
      await event('/tasks/exec-started', '"exec_id":"e3"');
      piped.stdin.end('piped in');
      assert.equal(await text(piped.stdout), 'piped in');
      await ctr.ok('tasks', 'pause', 'd1');
      assert.equal((await tasks())['d1']!.state, 'PAUSED');
      await ctr.ok('tasks', 'resume', 'd1');
      assert.match(await ctr.ok('tasks', 'metrics', 'd1'), /d1 /);
      assert.match(await ctr.ok('tasks', 'ps', 'd1'), /^\d+/m);
      const attached = run(file, ctr.arguments(['tasks', 'attach', 'd2']), { mayFail: true });
      await ctr.ok('tasks', 'kill', '-s', 'SIGTERM', 'd2');
      assert.equal((await attached).code, 5);
      await ctr.try('tasks', 'rm', 'd2');
      await ctr.ok('containers', 'rm', 'd2');
      for (const topic of ['create', 'start', 'paused', 'resumed'])
        await event(`/tasks/${topic}`, '"container_id":"d1"');
      await event('/tasks/exec-started', '"container_id":"d1"', '"exec_id":"e1"');
      await event('/tasks/exit', '"container_id":"d2"', '"exit_status":5');
    });

    test('the daemon killed: the next one finds the tasks, and learns how they ended meanwhile', async () => {
      await ctr.ok(...byName, '-d', image, 'd3', ...sleeper);
      const old = await tasks();
      await daemon.kill();
      const { pid } = old['d3']!;
      await eventually('it ends', () => {
        if (!isAlive(pid)) return true;
        // Again: its shell may not have set the trap yet, and process 1 ignores what it has none for.
        process.kill(pid, 'SIGTERM');
        return undefined;
      });
      await daemon.start();
      // containerd 2.3 itself removes tasks that it finds without processes.
      const { d3, ...alive } = await tasks();
      assert.deepEqual(alive, { d1: old['d1'] });
      assert.deepEqual(d3, version < 2 ? { pid: old['d3']!.pid, state: 'STOPPED' } : undefined);
      if (d3) assert.match((await ctr.try('tasks', 'rm', 'd3')).stderr, /code 5/);
      await ctr.ok('containers', 'rm', 'd3');
      assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e9', 'd1', 'echo', 'still'), 'still\n');
      await listen();
      await end('d1');
      await nothingLeft();
    });

    test('a process for each group that an annotation names', async () => {
      const grouped = ['run', '--runtime', 'io.containerd.grouped.v1'];
      const of = (group: string) => ['--annotation', group];
      if (version < 2 && !(await ctr.ok('run', '--help')).includes('--annotation')) return;
      await ctr.ok(...grouped, '-d', ...of('io.containerd.runc.v2.group=pod'), image, 'g1', ...sleeper);
      await ctr.ok(...grouped, '-d', ...of('io.kubernetes.cri.sandbox-id=pod'), image, 'g2', ...sleeper);
      await ctr.ok(...grouped, '-d', image, 'g3', ...sleeper);
      const [one, two, alone] = [await shimOf('g1'), await shimOf('g2'), await shimOf('g3')];
      assert.equal(one, two);
      assert.notEqual(one, alone);
      for (const id of ['g1', 'g2', 'g3']) await end(id);
      await nothingLeft();
    });

    test('the shim killed: the daemon’s own cleanup leaves nothing', async () => {
      for (const id of ['k1', 'k2']) await ctr.ok(...byName, '-d', image, id, ...sleeper);
      const pids = Object.values(await tasks()).map(({ pid }) => pid);
      process.kill(await shimOf('k1'), 'SIGKILL');
      for (const id of ['k1', 'k2']) await event('/tasks/exit', `"container_id":"${id}"`, '"exit_status":137');
      await eventually('the tasks are gone', async () => (Object.keys(await tasks()).length === 0 ? true : undefined));
      assert.deepEqual(pids.map(isAlive), [false, false]);
      for (const id of ['k1', 'k2']) await ctr.ok('containers', 'rm', id);
      await nothingLeft();
    });

    test('says of itself what it can do', { skip: version < 2 && '-info came with containerd 2' }, async () => {
      const info = await ctr.ok('plugins', 'inspect-runtime', '--runtime', 'io.containerd.gantry.v1');
      assert.match(info, /io\.gantry\.shim\.reuse/);
    });

    test('copies files into and out of a container', async () => {
      await ctr.ok(...byName, '-d', image, 'c1', ...sleeper);
      const [socket] = readdirSync(sockets).filter((name) => /^\w+$/.test(name));
      await using shim = await Shim.connect(path.join(sockets, socket!), { namespace });
      await shim.copyTo('c1', '/copied', shim.copyFrom('c1', '/etc/passwd'));
      const inside = await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'c1', 'cat', '/copied/passwd');
      assert.equal(inside, await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'c1', 'cat', '/etc/passwd'));
      await end('c1');
      await shim[Symbol.asyncDispose]();
      await nothingLeft();
    });

    test('sandboxes and their members', { skip: version < 2 && 'ctr has sandboxes since containerd 1.7' }, async () => {
      const spec = path.join(temp.path, 'pod.json');
      writeFileSync(spec, JSON.stringify({ ociVersion: '1.0.2', hostname: 'podhost' }));
      const runtime = ['--runtime', 'io.containerd.gantry.v1'];
      await ctr.ok('sandboxes', 'run', ...runtime, spec, 's1');
      const folder = path.join(daemon.directory, 'state/io.containerd.sandbox.controller.v1.shim', namespace);
      const join = (type: string, name: string) => ['--with-ns', `${type}:${folder}/s1/namespaces/${name}`];
      const member = ['-d', '--sandbox', 's1', ...join('uts', 'uts'), ...join('network', 'net'), image];
      await ctr.ok('run', ...runtime, ...member, 'm1', ...sleeper);
      assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'm1', 'hostname'), 'podhost\n');
      await daemon.kill();
      await daemon.start();
      assert.equal((await tasks())['m1']!.state, 'RUNNING');
      await end('m1');
      await ctr.ok('sandboxes', 'rm', 's1');
      assert.equal((await ctr.ok('sandboxes', 'ls')).trim().split('\n').length, 1);
      assert.deepEqual(readdirSync(folder), []);
      await nothingLeft();
    });
  });
}
