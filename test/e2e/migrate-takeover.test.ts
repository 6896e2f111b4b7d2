// containerd's containers under this daemon and back again: `gantryd migrate --from-containerd`, with what Debian's containerd and the
// newest one leave, and their own shims. Nothing is restarted, and containerd's own files stay as they were.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CtrSession, ctrClients } from '../lib/clients.ts';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { buildTestImages } from '../lib/images.ts';
import { Migration } from '../lib/migration.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const needsRoot = process.getuid?.() === 0 ? false : 'containers need root';
const image = 'docker.io/test/whiteouts:1';
const patience = 60_000;

for (const { name, program, short, client } of [
  { name: 'containerd 1.6', program: '/usr/bin/containerd', short: '16', client: 'ctr 1.6' },
  { name: 'containerd 2.3.4', program: containerd2, short: '23', client: 'ctr 2.3.4' },
]) {
  const ctrClient = ctrClients().find((one) => one.name === client)!;
  const skip = needsRoot || TestContainerd.missing(program) || ctrClient.missing || false;
  describe(`from ${name}`, { skip }, () => {
    const temp = makeTempDir(`take${short}`);
    const it = new Migration(temp.path, program, `take${short}-${process.pid}`, ctrClient);
    const { containerd, daemon } = it;
    const clients: ChildProcess[] = [];
    // Processes that stay the same.
    const sleeper = ['sh', '-c', 'trap "echo bye; exit 5" TERM; sleep 100000 & wait'];
    const log = path.join(temp.path, 'plain.log');
    let lists: Record<string, string[]> = {};
    let processes: Record<string, string[]> = {};
    let files = '';
    /** What runs on under this daemon's own shim when it has given back: the container, and the shim. */
    let left: number[] = [];
    let seen = '';

    /** A client that stays with its container until it is killed. */
    function attached(command: string, args: string[]): ChildProcess {
      const child = spawn(command, args, { stdio: ['pipe', 'ignore', 'ignore'] });
      clients.push(child);
      return child;
    }

    /** Process ids in each container. */
    async function pids(ctr: CtrSession): Promise<Record<string, string[]>> {
      const found: Record<string, string[]> = {};
      for (const [id, { state }] of Object.entries(await it.tasks(ctr)))
        if (state !== 'STOPPED') found[id] = (await ctr.ok('tasks', 'ps', id)).match(/^\d+/gm) ?? [];
      return found;
    }

    async function running(ctr: CtrSession, id: string): Promise<void> {
      await eventually(`${id} runs`, async () => (await it.tasks(ctr))[id]?.state === 'RUNNING' || undefined, patience);
    }

    /** Attaches to a container, types, and waits for what it answers; then the client goes away. */
    async function says(id: string, input: string, answer: string): Promise<void> {
      const words = [ctrClient.file, ...it.after.arguments(['tasks', 'attach', id])].join(' ');
      const child = spawn('script', ['-qec', words, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] });
      clients.push(child);
      let said = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      child.stdin.write(input);
      await eventually(`${id} says ${answer}`, () => said.includes(answer) || undefined, patience);
      await endProcess(child, 'SIGKILL');
    }

    async function listen(ctr: CtrSession): Promise<void> {
      const child = spawn(ctrClient.file, ctr.arguments(['events']), { stdio: ['ignore', 'pipe', 'ignore'] });
      clients.push(child);
      seen = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
      });
      await eventually(
        'events are listened to',
        async () => {
          await ctr.ok('namespaces', 'label', it.namespace, 'probe=1');
          return seen.includes('/namespaces/update') || undefined;
        },
        patience,
      );
    }

    function event(topic: string, ...parts: string[]): Promise<true> {
      const told = () => seen.split('\n').some((line) => [` ${topic} `, ...parts].every((part) => line.includes(part)));
      return eventually(`${topic} ${parts.join(' ')}`, () => told() || undefined, patience);
    }

    before(async () => {
      const { whiteouts } = await buildTestImages(temp.path, { few: true });
      await run('tar', ['-C', whiteouts, '-cf', `${whiteouts}.tar`, '.']);
      await containerd.start();
      const ctr = it.before;
      await ctr.ok('namespaces', 'create', it.namespace, 'team=x');
      await ctr.ok('images', 'import', '--index-name', image, `${whiteouts}.tar`);
      await ctr.ok('run', '-d', '--log-uri', `file://${log}`, image, 'plain', ...sleeper);
      await ctr.ok('tasks', 'exec', '-d', '--exec-id', 'background', 'plain', 'sleep', '100000');
      for (const id of ['pod', 'member'])
        await ctr.ok('run', '-d', '--annotation', 'io.containerd.runc.v2.group=pod', image, id, ...sleeper);
      await ctr.ok('run', '-d', image, 'ended', 'sh', '-c', 'exit 3');
      await ctr.ok('containers', 'create', '--label', 'a=b', image, 'box', 'touch', '/written');
      const echoes = 'while read line; do echo got $line; done';
      const words = [ctrClient.file, ...ctr.arguments(['run', '-t', image, 'terminal', 'sh'])].join(' ');
      const gone = [
        attached(ctrClient.file, ctr.arguments(['run', image, 'reads', 'sh', '-c', echoes])),
        attached('script', ['-qec', words, '/dev/null']),
      ];
      for (const id of ['reads', 'terminal', 'plain', 'pod', 'member']) await running(ctr, id);
      for (const child of gone) await endProcess(child, 'SIGKILL');
      await ctr.ok('leases', 'create', '--id', 'kept', 'why=test');
      const chain = (await ctr.ok('snapshots', 'ls')).match(/^(sha256:\w+) /m)![1]!;
      const key = ['snapshots', 'prepare', 'scratch', chain];
      await ctr.ok(...key);
      await ctr.ok('snapshots', 'label', 'scratch', 'containerd.io/gc.root=test');
      await eventually(
        'the task has ended',
        async () => {
          return (await it.tasks(ctr))['ended']?.state === 'STOPPED' || undefined;
        },
        patience,
      );
      lists = await it.lists(ctr);
      processes = await pids(ctr);
    });

    after(async () => {
      for (const child of clients) await endProcess(child, 'SIGKILL');
      for (const pid of left) process.kill(pid, 'SIGKILL');
      await daemon.stop();
      await containerd.stop();
      await containerd.start();
      try {
        for (const id of Object.keys(await it.tasks(it.before))) await it.before.try('tasks', 'rm', '-f', id);
      } finally {
        await containerd.stop();
      }
      await temp.remove();
    });

    test('while it runs nothing is taken', async () => {
      const { code, stderr } = await it.migrate();
      assert.equal(code, 1);
      assert.match(stderr, /containerd runs: it answers at .*c\.sock; stop it first/);
      assert.equal(existsSync(daemon.root), false);
    });

    test('a dry run tells what there is, and does nothing', async () => {
      await containerd.stop();
      files = it.fingerprint();
      const { code, stdout, stderr } = await it.migrate('--dry-run', '--format', 'json');
      assert.deepEqual([code, stderr], [0, '']);
      const report = JSON.parse(stdout);
      assert.equal(report.done, false);
      assert.deepEqual(report.notTaken, []);
      assert.deepEqual(
        report.tasks.map(({ id, taken }: { id: string; taken: boolean }) => [id, taken]),
        ['ended', 'member', 'plain', 'pod', 'reads', 'terminal'].map((id) => [id, true]),
      );
      const [overlayfs] = report.snapshotters;
      assert.deepEqual([overlayfs.name, overlayfs.copied], ['overlayfs', 2]);
      assert.ok(report.features.some((one: { name: string }) => one.name === 'runtime io.containerd.runc.v2'));
      assert.equal(existsSync(daemon.root), false);
    });

    test('everything it had is there, and no process was touched', async () => {
      const { code, stdout, stderr } = await it.migrate();
      assert.deepEqual([code, stderr], [0, '']);
      assert.match(stdout, /^Taken over\. Start gantryd now/m);
      assert.match((await it.migrate()).stderr, /has been taken over .* start gantryd on it/);
      const carried = readFileSync(path.join(daemon.directory, 'carried.toml'), 'utf8');
      assert.match(carried, /^version = 4\n# containerd's: root = /);
      await daemon.start();
      assert.deepEqual(await it.lists(it.after), lists);
      assert.deepEqual(await pids(it.after), processes);
      await daemon.kill();
      await daemon.start();
      assert.deepEqual(await it.lists(it.after), lists);
      assert.deepEqual(await pids(it.after), processes);
    });

    test('containers can be worked with as before', async () => {
      const ctr = it.after;
      assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'plain', 'echo', 'from exec'), 'from exec\n');
      await ctr.ok('tasks', 'pause', 'member');
      assert.equal((await it.tasks(ctr))['member']!.state, 'PAUSED');
      await ctr.ok('tasks', 'resume', 'member');
      await says('reads', 'words\n', 'got words');
      await says('terminal', 'echo typed-$((6*7))\n', 'typed-42');
    });

    test('containerd cannot start meanwhile, and one that ran is noticed', async () => {
      assert.match((await it.migrate('--dry-run')).stderr, /^$/);
      await daemon.stop();
      await containerd.start();
      await assert.rejects(daemon.start(), /containerd runs on .*, whose snapshots are used here; stop it first/);
      await containerd.stop();
      await assert.rejects(daemon.start(), /containerd has run on .* since it was taken over/);
    });

    test('and back again everything is as it was', async () => {
      const { code, stdout } = await it.migrate('--back');
      assert.equal(code, 0);
      assert.match(stdout, /Nothing has changed since it was taken over/);
      await assert.rejects(daemon.start(), /was given back to containerd/);
      await containerd.start();
      // Newer releases forget ended tasks whenever they start.
      if (short === '23') lists['tasks ls'] = lists['tasks ls']!.filter((row) => !row.startsWith('ended '));
      assert.deepEqual(await it.lists(it.before), lists);
      assert.deepEqual(await pids(it.before), processes);
    });

    test('taken over anew, ends are told, and what containerd had stays untouched', async () => {
      await containerd.stop();
      files = it.fingerprint();
      assert.equal((await it.migrate()).code, 0);
      await daemon.start();
      const ctr = it.after;
      assert.deepEqual(await it.lists(ctr), lists);
      await listen(ctr);
      await ctr.ok('tasks', 'kill', '-s', 'KILL', '--exec-id', 'background', 'plain');
      await event('/tasks/exit', '"container_id":"plain"', '"id":"background"', '"exit_status":137');
      await ctr.ok('tasks', 'kill', 'plain');
      await event('/tasks/exit', '"container_id":"plain"', '"id":"plain"', '"exit_status":5');
      assert.match((await ctr.try('tasks', 'rm', 'plain')).stderr, /exit code 5/);
      assert.equal(readFileSync(log, 'utf8'), 'bye\n');
      await ctr.ok('tasks', 'kill', '-s', 'KILL', 'pod');
      await event('/tasks/exit', '"container_id":"pod"', '"exit_status":137');
      await ctr.try('tasks', 'rm', 'pod');
      // One whose shim is killed ends with it, as under containerd.
      process.kill(parentOf((await it.tasks(ctr))['reads']!.pid), 'SIGKILL');
      await event('/tasks/exit', '"container_id":"reads"', '"exit_status":137');
      assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'member', 'echo', 'here'), 'here\n');
      // A container that containerd had and had not started runs on a copy; a new one on containerd's layers.
      await ctr.ok('tasks', 'start', 'box');
      assert.equal(await ctr.ok('run', '--rm', image, 'short', 'echo', 'new'), 'new\n');
      await ctr.ok('run', '-d', image, 'made', ...sleeper);
      const { pid } = (await it.tasks(ctr))['made']!;
      left = [pid, parentOf(pid)];
      await ctr.ok('containers', 'rm', 'plain');
      const ttrpc = `${containerd.address}.ttrpc`;
      assert.ok(existsSync(ttrpc));
      for (const id of ['member', 'terminal', 'ended']) await ctr.try('tasks', 'rm', '-f', id);
      await eventually('the old socket is closed', () => (existsSync(ttrpc) ? undefined : true), patience);
      const bundles = path.join(containerd.directory, 'state/io.containerd.runtime.v2.task', it.namespace);
      assert.equal(readdirSync(bundles).length, lists['tasks ls']!.length - 1);
    });

    test('the way back stops the daemon and tells what containerd cannot see', async () => {
      const { code, stdout } = await it.migrate('--back');
      assert.equal(code, 0);
      assert.match(stdout, new RegExp(`^gantryd \\(process ${daemon.pid}\\) has stopped`));
      const [, made = '', gone = ''] = /cannot see:\n(.*?)\n\n.*?will find ended:\n(.*?)\n\n/s.exec(stdout) ?? [];
      assert.match(made, new RegExp(`container ${it.namespace}/made\n`));
      assert.match(made, new RegExp(`task ${it.namespace}/made$`, 'm'));
      assert.ok(existsSync(`/proc/${left[0]}`), 'it goes on');
      assert.match(gone, new RegExp(`container ${it.namespace}/plain\n`));
      assert.match(gone, new RegExp(`task ${it.namespace}/plain$`, 'm'));
      assert.equal(it.fingerprint(), files);
      await containerd.start();
      assert.deepEqual(await it.tasks(it.before), {});
      assert.deepEqual(mountsBeneath(containerd.directory), []);
      const { tasks: _, ...others } = { ...lists, tasks: [] };
      const now = await it.lists(it.before);
      for (const [list, rows] of Object.entries(others)) if (list !== 'tasks ls') assert.deepEqual(now[list], rows);
    });

    test('what both have made is not mixed', async () => {
      await it.before.ok('containers', 'create', image, 'made', 'true');
      await containerd.stop();
      const { code, stderr } = await it.migrate();
      assert.equal(code, 1);
      assert.match(stderr, new RegExp(`one of each pair has to go first: container ${it.namespace}/made\n`));
    });
  });
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);
}
