import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createWriteStream, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { type CommandResult, endProcess, eventually, processesMentioning, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { Terminal } from '../lib/terminal.ts';

const docker = '/usr/bin/docker';
const dockerd = '/usr/sbin/dockerd';

function whyNot(): string | false {
  if (process.getuid?.() !== 0) return 'containers need root';
  return existsSync(dockerd) && existsSync(docker) ? false : 'dockerd (Debian’s docker.io) is not installed';
}

describe('dockerd with Gantry as its containerd', { skip: whyNot() }, () => {
  const temp = makeTempDir('dockerd');
  const daemon = new TestDaemon(path.join(temp.path, 'g'));
  const socket = path.join(temp.path, 'docker.sock');
  const env = { DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: path.join(temp.path, 'config') };
  const logFile = path.join(temp.path, 'dockerd.log');
  let moby: ChildProcess;

  async function startDockerd(): Promise<void> {
    const log = createWriteStream(logFile, { flags: 'a' });
    const args = [
      '--containerd',
      daemon.address,
      '--data-root',
      `${temp.path}/data`,
      '--exec-root',
      `${temp.path}/exec`,
    ];
    args.push(
      '--pidfile',
      `${temp.path}/dockerd.pid`,
      '--host',
      `unix://${socket}`,
      '--config-file',
      `${temp.path}/none`,
    );
    // No bridge and no rules of a firewall: networks are dockerd's own work, and they would be the whole machine's.
    args.push('--bridge=none', '--iptables=false', '--ip6tables=false', '--live-restore');
    moby = spawn(dockerd, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    moby.stdout?.pipe(log, { end: false });
    moby.stderr?.pipe(log, { end: false });
    await eventually(
      'dockerd answers',
      async () => {
        if (moby.exitCode !== null) throw new Error(`dockerd ended:\n${readFileSync(logFile, 'utf8').slice(-3000)}`);
        return (await attempt('version')).code === 0 || undefined;
      },
      60_000,
    );
  }

  const attempt = (...args: string[]): Promise<CommandResult> => run(docker, args, { env, mayFail: true });
  const ok = async (...args: string[]): Promise<string> => (await run(docker, args, { env })).stdout.trim();
  const start = (name: string, ...command: string[]) =>
    ok('run', '-d', '--name', name, '--network=none', 'busybox:1', 'sh', '-c', ...command);
  const state = async (name: string, field: string) => ok('inspect', '-f', `{{.State.${field}}}`, name);
  const terminal = (...args: string[]) => new Terminal(docker, args, env);

  before(async () => {
    mkdirSync(env.DOCKER_CONFIG);
    writeFileSync(path.join(temp.path, 'none'), '{}');
    await daemon.start();
    await startDockerd();
    const layout = path.join(temp.path, 'busybox');
    await buildImage(layout, [busyboxLayer], { Cmd: ['sh'], Env: ['PATH=/bin'] });
    await run('tar', ['-C', layout, '-cf', `${layout}.tar`, '.']);
    const ctr = ['-a', daemon.address, '-n', 'export'];
    await run(bin.ctr, [...ctr, 'images', 'import', '--index-name', 'docker.io/library/busybox:1', `${layout}.tar`]);
    await run(bin.ctr, [...ctr, 'images', 'export', `${layout}-docker.tar`, 'docker.io/library/busybox:1']);
    assert.match(await ok('load', '-i', `${layout}-docker.tar`), /Loaded image: busybox:1/);
  });

  after(async () => {
    for (const id of (await attempt('ps', '-aq')).stdout.split(/\s+/).filter(Boolean)) await attempt('rm', '-f', id);
    await endProcess(moby, 'SIGTERM', 60_000);
    await daemon.stop();
    await eventually(
      'no process is left',
      () => processesMentioning(temp.path).length === 0 || undefined,
      60_000,
    ).catch(() => assert.deepEqual(processesMentioning(temp.path), []));
    await temp.remove();
  });

  test('run: output, exit codes, stdin', async () => {
    assert.equal(await ok('run', '--rm', '--network=none', 'busybox:1', 'echo', 'hello'), 'hello');
    const failed = await attempt('run', '--rm', '--network=none', 'busybox:1', 'sh', '-c', 'echo no >&2; exit 7');
    assert.deepEqual(failed, { code: 7, stdout: '', stderr: 'no\n' });
    const missing = await attempt('run', '--rm', '--network=none', 'busybox:1', 'no-such-program');
    assert.equal(missing.code, 127, 'dockerd knows by the message that the program was not found');
    assert.match(missing.stderr, /no-such-program.*not found/);
    // dockerd waits with its open stdin FIFO for a reader, writes, and closes it: all before the process has started.
    for (let time = 0; time < 8; time++) {
      const fed = await run(docker, ['run', '-i', '--rm', '--network=none', 'busybox:1', 'cat'], { env, input: 'fed' });
      assert.equal(fed.stdout, 'fed');
    }
  });

  test('eight megabytes through stdin and stdout', async () => {
    const file = path.join(temp.path, 'random');
    const bytes = randomBytes(8 << 20);
    writeFileSync(file, bytes);
    const line = `${docker} run -i --rm --network=none busybox:1 cat < ${file} | sha256sum`;
    const { stdout } = await run('sh', ['-c', line], { env });
    assert.equal(stdout.split(' ')[0], createHash('sha256').update(bytes).digest('hex'));
  });

  test('run -it: a terminal, its size, detaching and attaching', async () => {
    const first = terminal('run', '-it', '--name', 'shell', '--network=none', 'busybox:1', 'sh');
    await first.expect('# ');
    first.type('stty size\n');
    await first.expect('40 100');
    first.resize({ rows: 33, cols: 77 });
    // The size travels on its own way: ask until it is there.
    first.type('while [ "$(stty size)" != "33 77" ]; do :; done; echo new"-"size\n');
    await first.expect('new-size');
    first.type('KEPT=kept; echo re"-"ady\n');
    await first.expect('re-ady');
    first.type('\x10\x11');
    assert.equal(await first.end(), 0);
    assert.equal(await state('shell', 'Running'), 'true');
    const second = terminal('attach', 'shell');
    second.type('\necho "<$KEPT>"; tty\n');
    await second.expect('<kept>');
    await second.expect('/dev/pts/0');
    second.type('exit 5\n');
    assert.equal(await second.end(), 5);
  });

  test('exec, logs, top, stats, pause, update', async () => {
    await start('worker', 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done');
    assert.equal(await ok('exec', 'worker', 'echo', 'inside'), 'inside');
    assert.equal((await attempt('exec', 'worker', 'sh', '-c', 'exit 9')).code, 9);
    assert.equal(
      await ok('exec', '-u', 'www-data', '-w', '/var', '-e', 'A=b', 'worker', 'sh', '-c', 'id -u; pwd; echo $A'),
      '33\n/var\nb',
    );
    const shell = terminal('exec', '-it', 'worker', 'sh');
    await shell.expect('# ');
    shell.type('stty size; exit 3\n');
    await shell.expect('40 100');
    assert.equal(await shell.end(), 3);
    await eventually(
      'three lines are logged',
      async () => (await ok('logs', 'worker')).includes('line 3') || undefined,
    );
    assert.match(await ok('logs', 'worker'), /^line 1\nline 2\nline 3/);
    assert.match(await ok('top', 'worker'), /sh -c i=0/);
    const [memory = '', pids = ''] = (
      await ok('stats', '--no-stream', '--format', '{{.MemUsage}}|{{.PIDs}}', 'worker')
    ).split('|');
    assert.match(memory, /^[1-9][0-9.]*[KM]iB/);
    assert.ok(Number(pids) >= 1, pids);
    await ok('pause', 'worker');
    assert.equal(await state('worker', 'Status'), 'paused');
    assert.match((await attempt('exec', 'worker', 'true')).stderr, /is paused/);
    await ok('unpause', 'worker');
    await ok('update', '--memory', '64m', '--memory-swap', '64m', 'worker');
    const pid = await state('worker', 'Pid');
    await ok('restart', '-t', '1', 'worker');
    assert.notEqual(await state('worker', 'Pid'), pid);
    await ok('kill', '-s', 'KILL', 'worker');
    await eventually('the signal ended it', async () => (await state('worker', 'ExitCode')) === '137' || undefined);
    await ok('rm', 'worker');
  });

  test('a container over its memory is told as such', async () => {
    const eater = 'x=$(head -c 100000000 /dev/zero | tr "\\0" x)';
    await attempt('run', '--name', 'eater', '--network=none', '-m', '20m', 'busybox:1', 'busybox', 'sh', '-c', eater);
    await eventually('dockerd heard of it', async () => (await state('eater', 'OOMKilled')) === 'true' || undefined);
    await ok('rm', 'eater');
  });

  test('a restart policy', async () => {
    await ok('run', '-d', '--name', 'again', '--network=none', '--restart=on-failure:2', 'busybox:1', 'false');
    await eventually('it was started again twice', async () => {
      const [count, running] = (await ok('inspect', '-f', '{{.RestartCount}} {{.State.Running}}', 'again')).split(' ');
      return (count === '2' && running === 'false') || undefined;
    });
    await ok('rm', 'again');
  });

  test('Gantry killed and started again under a running dockerd', async () => {
    await start('goes-on', 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done');
    await start('ends', `while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 42`);
    const shell = terminal('run', '-it', '--name', 'kept', '--network=none', 'busybox:1', 'sh');
    await shell.expect('# ');
    const [ends, goesOn] = [await state('ends', 'Pid'), await state('goes-on', 'Pid')];
    await daemon.kill();
    writeFileSync(`/proc/${ends}/root/tmp/end`, '');
    await eventually('it ended meanwhile', () => !existsSync(`/proc/${ends}`) || undefined);
    shell.type('echo while"-"away\n');
    await shell.expect('while-away');
    await daemon.start();
    await eventually(
      'dockerd hears of the end',
      async () => (await state('ends', 'ExitCode')) === '42' || undefined,
      60_000,
    );
    assert.equal(await state('goes-on', 'Pid'), goesOn);
    assert.equal(await ok('exec', 'goes-on', 'echo', 'again'), 'again');
    shell.type('exit 6\n');
    assert.equal(await shell.end(), 6);
    const lines = (await ok('logs', 'goes-on')).split('\n');
    assert.deepEqual(
      lines,
      Array.from(lines, (_, index) => `line ${index + 1}`),
      'no line is lost or doubled',
    );
    await ok('kill', 'goes-on');
    await ok('rm', 'goes-on', 'ends', 'kept');
  });

  test('dockerd killed and started again: its containers are under Gantry still', async () => {
    await start('stays', 'sleep 1000');
    const pid = await state('stays', 'Pid');
    await endProcess(moby, 'SIGKILL');
    await startDockerd();
    assert.equal(await state('stays', 'Pid'), pid);
    assert.equal(await ok('exec', 'stays', 'echo', 'still'), 'still');
    await ok('rm', '-f', 'stays');
    assert.equal(await ok('ps', '-aq'), await ok('ps', '-aqf', 'name=shell'), 'nothing else is left');
  });
});
