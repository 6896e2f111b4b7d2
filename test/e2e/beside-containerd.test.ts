// The same commands of containerd's own ctr against gantryd and against containerd 2.3.4: what they print is the same.
import assert from 'node:assert/strict';
import { chmodSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const client = ctrClients().find(({ name }) => name === 'ctr 2.3.4')!;
const skip =
  (process.getuid?.() === 0 ? false : 'containers need root') || client.missing || TestContainerd.missing(containerd2);

const image = 'x/busybox:1';
/** containerd's runtime keeps its state in one place for all daemons: names are of this run. */
const of = (name: string): string => `${name}-${process.pid}`;

/** All that a process finds out about itself; numbers that say which process it is are left out. */
const look = [
  'exec 2>&1',
  'ls /proc/self/fd | wc -l',
  'cat /proc/self/limits',
  `grep -E '^(Umask|Uid|Gid|Groups|NoNewPrivs|Seccomp|Sig(Blk|Ign|Cgt)|ShdPnd|Cap)' /proc/self/status`,
  'env | sort',
  'cat /proc/self/oom_score_adj /proc/self/personality',
  'id; umask; pwd; hostname',
  'sed s/^[0-9]*:// /proc/self/cgroup',
  `cut -d' ' -f5- /proc/self/mountinfo | sed -E 's/(lowerdir|upperdir|workdir)=[^, ]*//g; s/(shared|master):[0-9]+ //'`,
  'ls -l /dev | cut -c1-10,24-40',
].join('; ');

/** Whether a process has ended, collected or not. */
function isOver(pid: number): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return true;
  }
}

describe('beside containerd', { skip }, () => {
  const temp = makeTempDir('beside');
  const gantryd = new TestDaemon(path.join(temp.path, 'g'));
  const containerd = new TestContainerd(path.join(temp.path, 'c'), containerd2);
  const sides = [gantryd, containerd].map(({ address }) => new CtrSession(client, address, 'default'));

  before(async () => {
    const archive = await busyboxArchive(temp.path, image);
    // Mapped ids have to get through to the bundles.
    chmodSync(temp.path, 0o711);
    process.env['CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS'] = '1';
    await Promise.all([gantryd.start(), containerd.start()]);
    for (const ctr of sides) await ctr.ok('images', 'import', archive);
  });

  after(async () => {
    await gantryd.stop();
    await containerd.stop();
    delete process.env['CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS'];
    await temp.remove();
  });

  /** Code and words of a command, without what tells the two daemons or moments apart. */
  async function answer(ctr: CtrSession, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await ctr.try(...args);
    const words = `${stdout}${stderr}`
      .replaceAll(/time="[^"]*" /g, '')
      .replaceAll(new RegExp(`${temp.path}/[gc]/(state/)?`, 'g'), 'DIR/')
      // A runtime's own last words may reach a client's FIFO before the daemon's.
      .replaceAll(/^runc (create|exec) failed: .*\n/gm, '')
      .trim();
    return `${args.join(' ')}\n${code}\n${words}`;
  }

  const ended = (ctr: CtrSession, id: string) =>
    eventually(
      `${id} has ended`,
      async () => new RegExp(`^${id} +\\d+ +STOPPED`, 'm').test(await ctr.ok('tasks', 'ls')) || undefined,
    );

  /** Runs a story on both sides and holds what was told against each other. */
  async function same(story: (ctr: CtrSession, say: (...args: string[]) => Promise<string>) => Promise<void>) {
    // One after the other: both give a container of one name the same cgroup.
    const told: [string[], string[]] = [[], []];
    for (const [side, ctr] of sides.entries()) {
      const lines = told[side]!;
      await story(ctr, async (...args) => {
        const line = await answer(ctr, ...args);
        lines.push(line);
        return line;
      });
    }
    assert.deepEqual(told[0], told[1]);
  }

  test('a process finds the same descriptors, limits, signals, capabilities, environment and mounts', async () => {
    await same(async (ctr, say) => {
      await say('run', '--rm', image, of('one'), 'sh', '-c', look);
      await say(
        'run',
        '--rm',
        '--privileged',
        '--user',
        '1000:1000',
        '--env',
        'A=b',
        image,
        of('two'),
        'sh',
        '-c',
        look,
      );
      await say(
        'run',
        '--rm',
        '--uidmap',
        '0:100000:65536',
        '--gidmap',
        '0:100000:65536',
        image,
        'three',
        'sh',
        '-c',
        look,
      );
      await ctr.ok('run', '-d', image, of('four'), 'sleep', '1000');
      await say('tasks', 'exec', '--exec-id', 'a', of('four'), 'sh', '-c', look);
      await say('tasks', 'exec', '--exec-id', 'b', '--user', 'nobody', '--cwd', '/etc', of('four'), 'sh', '-c', look);
      await ctr.ok('tasks', 'kill', '-s', 'KILL', of('four'));
      await ended(ctr, of('four'));
      await say('tasks', 'rm', of('four'));
      await ctr.ok('containers', 'rm', of('four'));
    });
  });

  test('what a running, a frozen and an ended container answer', async () => {
    await same(async (ctr, say) => {
      await ctr.ok('run', '-d', image, of('c'), 'sleep', '1000');
      await say('tasks', 'rm', of('c'));
      await say('containers', 'rm', of('c'));
      await say('tasks', 'start', of('c'));
      await say('tasks', 'resume', of('c'));
      await say('tasks', 'kill', '--exec-id', 'none', of('c'));
      await say('tasks', 'pause', of('c'));
      await say('tasks', 'pause', of('c'));
      await say('tasks', 'exec', '--exec-id', 'e', of('c'), 'true');
      await say('tasks', 'resume', of('c'));
      await ctr.ok('tasks', 'kill', '-s', 'KILL', of('c'));
      await ended(ctr, of('c'));
      for (const verb of ['kill', 'pause', 'resume', 'ps', 'start']) await say('tasks', verb, of('c'));
      await say('tasks', 'exec', '--exec-id', 'e', of('c'), 'true');
      await say('tasks', 'rm', of('c'));
      await say('tasks', 'rm', of('c'));
      await say('containers', 'rm', of('c'));
    });
  });

  test('execs: users, directories, programs that are not there, codes and signals', async () => {
    await same(async (ctr, say) => {
      await ctr.ok('run', '-d', image, of('c'), 'sleep', '1000');
      const exec = (...args: string[]) => say('tasks', 'exec', '--exec-id', 'e', ...args);
      await exec(of('c'), '/nope');
      await exec('--user', '1234:99', of('c'), 'id');
      await exec('--user', 'nobody-known', of('c'), 'id');
      await exec('--cwd', '/etc', of('c'), 'pwd');
      await exec(of('c'), 'sh', '-c', 'exit 7');
      await exec(of('c'), 'sh', '-c', 'kill -9 $$');
      await ctr.ok('tasks', 'exec', '-d', '--exec-id', 'long', of('c'), 'sleep', '1000');
      await say('tasks', 'exec', '--exec-id', 'long', of('c'), 'true');
      await say('tasks', 'kill', '--exec-id', 'long', '-s', 'KILL', of('c'));
      await eventually(
        'the exec can be removed',
        async () => (await ctr.try('tasks', 'rm', '--exec-id', 'long', of('c'))).code === 137 || undefined,
      );
      await ctr.try('tasks', 'rm', '-f', of('c'));
      await ctr.ok('containers', 'rm', of('c'));
    });
  });

  test('a shared pid namespace: all are killed, and nobody else; what an init leaves behind goes', async () => {
    await same(async (ctr, say) => {
      await ctr.ok('run', '-d', image, of('host'), 'sleep', '1000');
      const pid = /host-\d+ +(\d+)/.exec(await ctr.ok('tasks', 'ls'))![1]!;
      const join = ['--with-ns', `pid:/proc/${pid}/ns/pid`];
      const tree = 'setsid sleep 1000 & sleep 1000 & setsid sh -c "sleep 1000 & sleep 1000" & exec sleep 1000';
      for (const [id, ...flags] of [[of('all'), '--all'], [of('init')]] as [string, ...string[]][]) {
        await ctr.ok('run', '-d', ...join, image, id, 'sh', '-c', tree);
        const pids = async () =>
          (await ctr.ok('tasks', 'ps', id))
            .trim()
            .split('\n')
            .slice(1)
            .map((line) => Number.parseInt(line, 10));
        const five = await eventually('its processes are there', async () => {
          const found = await pids();
          return found.length >= 5 ? found : undefined;
        });
        await ctr.ok('tasks', 'kill', ...flags, '-s', 'KILL', id);
        await ended(ctr, id);
        // What was left of them falls to the first process of their namespace, which here collects nobody.
        await eventually('none is left', () => five.every(isOver) || undefined);
        await say('tasks', 'rm', id);
        await ctr.ok('containers', 'rm', id);
      }
      assert.match(await ctr.ok('tasks', 'ls'), /host-\d+ +\d+ +RUNNING/);
      await ctr.try('tasks', 'rm', '-f', of('host'));
      await ctr.ok('containers', 'rm', of('host'));
    });
  });

  test('limits, and what cannot be', async () => {
    await same(async (_ctr, say) => {
      const greedy = 'tail /dev/zero';
      await say('run', '--rm', '--memory-limit', '16000000', image, of('oom'), 'sh', '-c', greedy);
      await say(
        'run',
        '--rm',
        '--cpus',
        '0.5',
        '--cpu-shares',
        '99',
        '--cpuset-cpus',
        '0',
        image,
        'cpu',
        'grep',
        'Cpus',
        '/proc/self/status',
      );
      await say('run', '--rm', image, of('none'), '/nope');
      await say('run', '--rm', '--read-only', image, of('ro'), 'touch', '/x');
      await say('run', '--rm', '--rootfs-propagation', 'odd', image, of('odd'), 'true');
      await say('run', '--rm', '--apparmor-profile', 'none-such', image, of('aa'), 'true');
      await say('run', '--rm', '--log-uri', 'what:///x', image, of('uri'), 'true');
      await say('tasks', 'ls');
      await say('containers', 'ls');
    });
  });
});
