// Other people's shims: Debian's containerd-shim-runc-v2 (1.6: flags, an address line, task API 2) and that of containerd 2.3.4
// (parameters on stdin, task API 3), the latter also behind gRPC, driven by containerd's own ctr through our daemon.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { endProcess, eventually } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const root = process.getuid?.() === 0 ? false : 'containers need root';
const client = ctrClients().find(({ name }) => name === 'ctr 2.3.4')!;
const image = 'x/busybox:1';

const debian = '/usr/bin/containerd-shim-runc-v2';
const recent = path.resolve(import.meta.dirname, '../../.cache/go-bin/containerd-shim-runc-v2');

interface ForeignShim {
  name: string;
  file: string;
  /** What it answers at start. */
  version: number;
  protocol: 'ttrpc' | 'grpc';
  missing: string | false;
}

const shims: ForeignShim[] = [
  {
    name: 'of Debian’s containerd 1.6',
    file: debian,
    version: 2,
    protocol: 'ttrpc',
    missing: / 1\.6\.|: *1\.6\./.test(spawnSync(debian, ['-v'], { encoding: 'utf8' }).stdout ?? '')
      ? false
      : 'containerd-shim-runc-v2 1.6 of Debian’s containerd package is not installed',
  },
  {
    name: 'of containerd 2.3.4',
    file: recent,
    version: 3,
    protocol: 'ttrpc',
    missing: existsSync(recent)
      ? false
      : 'containerd-shim-runc-v2 2.3.4 is not installed in .cache/go-bin (npm test does it when Go is there)',
  },
];

shims.push({ ...shims[1]!, name: 'of containerd 2.3.4, behind gRPC', protocol: 'grpc' });

/** A program that puts `grpc-shim.ts` in front of a shim. */
function behindGrpc(file: string, folder: string): string {
  const wrapper = path.join(folder, 'containerd-shim-grpc-v3');
  const program = path.resolve(import.meta.dirname, '../lib/grpc-shim.ts');
  const lines = `#!/bin/sh\nREAL_SHIM='${file}' exec '${process.execPath}' '${program}' "$@"\n`;
  writeFileSync(wrapper, lines, { mode: 0o755 });
  return wrapper;
}

function status(pid: number, field: string): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)?.[1]);
}

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}/stat`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

for (const shim of shims) {
  describe(`shim ${shim.name}`, { skip: root || client.missing || shim.missing }, () => {
    const temp = makeTempDir(`fs${shim.version}`);
    const program = shim.protocol === 'grpc' ? behindGrpc(shim.file, temp.path) : shim.file;
    const directory = path.join(temp.path, 'd');
    const settings = `[plugins.'io.containerd.shim.v1.manager']
  runc_v2_shim = '${program}'
  socket_dir = '${temp.path}/s'
`;
    let daemon = new TestDaemon(directory, settings);
    const ctr = new CtrSession(client, daemon.address, 'foreign');
    const bundles = path.join(daemon.state, 'io.containerd.runtime.v2.task/foreign');
    let events: ReturnType<typeof spawn> | undefined;
    let seen = '';

    /** Pid and state of each task. */
    async function tasks(): Promise<Record<string, { pid: number; state: string }>> {
      const rows = (await ctr.ok('tasks', 'ls')).trim().split('\n').slice(1);
      return Object.fromEntries(
        rows.map((row) => {
          const [id, pid, state] = row.split(/\s+/);
          return [id!, { pid: Number(pid), state: state! }];
        }),
      );
    }

    /** The process that looks after a container's first process, which must be the shim under test. */
    async function shimOf(id: string): Promise<number> {
      const shimPid = status((await tasks())[id]!.pid, 'PPid');
      assert.equal(readlinkSync(`/proc/${shimPid}/exe`), readlinkOrSelf(shim.file));
      return shimPid;
    }

    function socketOf(id: string): string {
      const { address } = JSON.parse(readFileSync(path.join(bundles, id, 'bootstrap.json'), 'utf8'));
      const file = String(address).replace('unix://', '');
      assert.ok(existsSync(file));
      return file;
    }

    async function listen(): Promise<void> {
      if (events) await endProcess(events);
      const child = spawn(client.file, ctr.arguments(['events']), { stdio: ['ignore', 'pipe', 'ignore'] });
      seen = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
      });
      events = child;
      await eventually('events are listened to', async () => {
        await ctr.ok('namespaces', 'label', 'foreign', 'probe=1');
        return seen.includes('/namespaces/update') || undefined;
      });
    }

    /** Waits for an event of a topic that says all of this. */
    function event(topic: string, ...parts: string[]): Promise<true> {
      return eventually(`${topic} ${parts.join(' ')}`, () => {
        const found = seen.split('\n').some((line) => [` ${topic} `, ...parts].every((part) => line.includes(part)));
        return found || undefined;
      });
    }

    /** Deletes a task that has ended, and expects to be told how it ended. */
    async function removed(id: string, exitCode: number): Promise<void> {
      const { stderr } = await ctr.try('tasks', 'rm', id);
      assert.match(stderr, new RegExp(`task ${id} exit with non-zero exit code ${exitCode}`));
    }

    const sleeper = ['sh', '-c', 'trap "exit 5" TERM; while :; do sleep 0.1; done'];

    before(async () => {
      const archive = await busyboxArchive(temp.path, image);
      await daemon.start();
      await ctr.ok('images', 'import', archive);
      await listen();
    });

    after(async () => {
      if (events) await endProcess(events);
      for (const id of Object.keys(await tasks().catch(() => ({})))) await ctr.try('tasks', 'rm', '-f', id);
      await daemon.stop();
      await temp.remove();
    });

    test('is found by its path, and by the setting; runs, and tells output and exit code', async () => {
      const script = 'echo out; echo err >&2; exit 7';
      for (const flags of [['--runtime', program], []]) {
        const result = await ctr.try('run', '--rm', ...flags, image, 'short', 'sh', '-c', script);
        assert.deepEqual({ ...result, stderr: '' }, { code: 7, stdout: 'out\n', stderr: '' });
        assert.match(result.stderr, /^err$/m);
      }
      // Another one of Debian’s, by its name alone.
      if (shim.version === 2) {
        const named = await ctr.try(
          'run',
          '--rm',
          '--runtime',
          'io.containerd.runc.v1',
          image,
          'v1',
          'sh',
          '-c',
          script,
        );
        assert.deepEqual([named.code, named.stdout], [7, 'out\n']);
      }
      const missing = await ctr.try('run', '--rm', '--runtime', '/no/such/shim', image, 'none', 'true');
      assert.match(missing.stderr, /invalid custom binary path: stat \/no\/such\/shim: no such file or directory/);
      assert.deepEqual(existsSync(bundles) ? readdirSync(bundles) : [], []);
    });

    test('says of itself what it can do', { skip: shim.version < 3 && '-info came with containerd 2' }, async () => {
      const info = JSON.parse(await ctr.ok('plugins', 'inspect-runtime', '--runtime', program)) as {
        Name: string;
        Features?: { ociVersionMax?: string };
      };
      assert.equal(info.Name, 'io.containerd.runc.v2');
      assert.match(info.Features?.ociVersionMax ?? '', /^1\./);
    });

    test('execs, has terminals, pauses and resumes, and its events arrive', async () => {
      await ctr.ok('run', '-d', image, 'web', ...sleeper);
      await shimOf('web');
      const bootstrap = JSON.parse(readFileSync(path.join(bundles, 'web/bootstrap.json'), 'utf8'));
      assert.equal(bootstrap.version, shim.version);
      assert.equal(bootstrap.protocol, shim.protocol);
      // Version 2 has no way to be told where.
      if (shim.version === 3) assert.equal(path.dirname(bootstrap.address), `unix://${temp.path}/s`);
      assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e1', 'web', 'echo', 'from exec'), 'from exec\n');
      assert.equal((await ctr.try('tasks', 'exec', '--exec-id', 'e2', 'web', 'sh', '-c', 'exit 9')).code, 9);
      const exec = await ctr.onTerminal('', 'tasks', 'exec', '-t', '--exec-id', 'e3', 'web', 'tty');
      assert.match(exec.stdout, /\/dev\/pts\/\d+/);
      const typed = await ctr.onTerminal('echo typed-$((6*7))\nexit\n', 'run', '--rm', '-t', image, 'typed', 'sh');
      assert.match(typed.stdout, /typed-42/);
      await ctr.ok('tasks', 'pause', 'web');
      assert.equal((await tasks())['web']!.state, 'PAUSED');
      await ctr.ok('tasks', 'resume', 'web');
      assert.equal((await tasks())['web']!.state, 'RUNNING');
      await ctr.ok('tasks', 'kill', 'web');
      await event('/tasks/exit', '"container_id":"web"', '"exit_status":5');
      await removed('web', 5);
      for (const topic of ['create', 'start', 'exec-added', 'exec-started', 'paused', 'resumed', 'delete'])
        await event(`/tasks/${topic}`, '"container_id":"web"');
      await ctr.ok('containers', 'rm', 'web');
    });

    test('its log comes out in the daemon’s', async () => {
      // With the daemon at debug level, the shim logs its own start.
      await ctr.ok('run', '--rm', image, 'logged', 'true');
      await eventually(
        'a line of the shim',
        () => /msg="?(starting signal loop|registering ttrpc)/.test(daemon.log()) || undefined,
      );
    });

    test('puts the containers of a group in one process', async () => {
      const group = ['--annotation', 'io.containerd.runc.v2.group=pod'];
      for (const id of ['first', 'second']) await ctr.ok('run', '-d', ...group, image, id, ...sleeper);
      await ctr.ok('run', '-d', image, 'alone', ...sleeper);
      const first = await shimOf('first');
      assert.equal(await shimOf('second'), first);
      assert.notEqual(await shimOf('alone'), first);
      // The one that the shim was started for goes; the others stay.
      await ctr.ok('tasks', 'kill', '-s', 'KILL', 'first');
      await event('/tasks/exit', '"container_id":"first"', '"exit_status":137');
      await removed('first', 137);
      assert.equal(await shimOf('second'), first);
      assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'second', 'echo', 'here'), 'here\n');
      await ctr.ok('containers', 'rm', 'first');
    });

    test('goes on while the daemon is dead, and the next one knows how containers ended', async () => {
      const old = await tasks();
      assert.deepEqual(Object.keys(old).sort(), ['alone', 'second']);
      await daemon.kill();
      process.kill(old['second']!.pid, 'SIGTERM');
      await eventually('the container ends', () => (isAlive(old['second']!.pid) ? undefined : true));
      await daemon.start();
      assert.deepEqual(await tasks(), {
        alone: { pid: old['alone']!.pid, state: 'RUNNING' },
        second: { pid: old['second']!.pid, state: 'STOPPED' },
      });
      await removed('second', 5);
      assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'alone', 'echo', 'still'), 'still\n');
      await listen();
      await ctr.ok('containers', 'rm', 'second');
    });

    test('killed, leaves nothing, and the world is told', async () => {
      const { pid } = (await tasks())['alone']!;
      const socket = socketOf('alone');
      process.kill(await shimOf('alone'), 'SIGKILL');
      await event('/tasks/exit', '"container_id":"alone"', '"exit_status":137');
      await event('/tasks/delete', '"container_id":"alone"', '"exit_status":137');
      assert.deepEqual(await tasks(), {});
      assert.equal(isAlive(pid), false);
      assert.deepEqual(readdirSync(bundles), []);
      assert.deepEqual(mountsBeneath(bundles), []);
      assert.equal(existsSync(socket), false);
      await ctr.ok('containers', 'rm', 'alone');
    });

    test('killed together with the daemon, leaves nothing of its group', async () => {
      const group = ['--annotation', 'io.containerd.runc.v2.group=pod'];
      for (const id of ['one', 'two']) await ctr.ok('run', '-d', ...group, image, id, ...sleeper);
      const pids = Object.values(await tasks()).map(({ pid }) => pid);
      const killed = await shimOf('one');
      const socket = socketOf('one');
      await daemon.kill();
      process.kill(killed, 'SIGKILL');
      await daemon.start();
      assert.deepEqual(await tasks(), {});
      assert.deepEqual(pids.map(isAlive), [false, false]);
      assert.deepEqual(readdirSync(bundles), []);
      assert.deepEqual(mountsBeneath(bundles), []);
      assert.equal(existsSync(socket), false);
      for (const id of ['one', 'two']) await ctr.ok('containers', 'rm', id);
    });

    test('that hangs, does not hold up the start of the daemon', async () => {
      await ctr.ok('run', '-d', image, 'hung', ...sleeper);
      const { pid } = (await tasks())['hung']!;
      const hung = await shimOf('hung');
      await daemon.kill();
      process.kill(hung, 'SIGSTOP');
      try {
        daemon = new TestDaemon(directory, `${settings}[timeouts]\n'io.containerd.timeout.shim.load' = '1s'\n`);
        await daemon.start();
        assert.match(daemon.log(), /shim of a task does not answer.*no answer in 1000 ms/);
        assert.deepEqual(await tasks(), {});
        await eventually('the bundle is gone', () => (readdirSync(bundles).length === 0 ? true : undefined));
        assert.equal(isAlive(pid), false);
      } finally {
        process.kill(hung, 'SIGKILL');
      }
      await ctr.ok('containers', 'rm', 'hung');
    });
  });
}

function readlinkOrSelf(file: string): string {
  return spawnSync('readlink', ['-f', file], { encoding: 'utf8' }).stdout.trim();
}
