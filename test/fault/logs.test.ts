import assert from 'node:assert/strict';
import { createReadStream, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';
import { LogFollower } from './log-follower.ts';
import { Random } from './random.ts';
import { faultRounds } from './rounds.ts';

/**
 * `kill -9` of the daemon at random moments while containers flood their logs on both streams: each line is in the log once and whole, in
 * its stream's order, also of a container that ends while it happens, and for who follows the log meanwhile. `GANTRY_FAULT_SEED` repeats the choices of a run,
 * `GANTRY_FAULT_ROUNDS` sets the number of kills.
 */
const rounds = faultRounds(10);
const patience = 60_000;

/** Blocks that end in the middle of lines, now and then one that is longer than a line of a log may be. */
const flood = `
n=0
until [ -e /ctl/stop ]; do
  awk -v a=$n 'BEGIN {
    p = "abcdefghij"; while (length(p) < 40000) p = p p
    for (i = a; i < a + 999; i++) {
      l = i % 499 == 0 ? 20000 + i % 20000 : i % 120
      print "o" i " " substr(p, 1, l)
      if (i % 3 == 0) print "e" i / 3 " " substr(p, 1, i % 50) > "/dev/stderr"
    }
  }'
  n=$((n + 999))
  sleep 0.02
done
echo "end $n"
echo "end $n" >&2`;
/** Line by line, both streams by turns. */
const lines = `n=0; until [ -e /ctl/stop ]; do echo "o$n x"; echo "e$n y" >&2; n=$((n + 1)); done; echo "end $n"; echo "end $n" >&2`;
/** One that ends by itself. */
const short = `awk 'BEGIN { for (i = 0; i < 20000; i++) print "o" i " of one that ends while the daemon is killed" }'; echo "end 20000"`;

describe('logs of containers, and the daemon killed', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('logs');
  const lab = new CriLab(temp.path, { bridge: 'gantrylogs0', subnet: '10.213.0.0/24' });
  const random = Random.fromEnvironment();
  const control = path.join(temp.path, 'ctl');

  before(async () => {
    console.log(`GANTRY_FAULT_SEED=${random.seed}`);
    mkdirSync(control);
    await lab.start();
    await lab.ok('pull', 'busybox:1');
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  const mounts = [{ host_path: control, container_path: '/ctl', readonly: true }];
  const logOf = (pod: string, name: string) => path.join(temp.path, 'logs', pod, `${name}.log`);

  async function exited(id: string): Promise<void> {
    const end = await eventually(
      `${id} has ended`,
      async () => {
        const { code, stdout } = await lab.crictl(['inspect', id], { mayFail: true });
        if (code !== 0) return undefined;
        const { status } = JSON.parse(stdout) as { status: { state: string; exitCode: number } };
        return status.state === 'CONTAINER_EXITED' ? status : undefined;
      },
      patience,
    );
    assert.equal(end.exitCode, 0);
  }

  test('each line once and whole, in order', async () => {
    const pods = {
      own: lab.pod('own'),
      host: lab.pod('host', { linux: { security_context: { namespace_options: { pid: 2 } } } }),
    };
    const podIds = { own: await lab.ok('runp', pods.own), host: await lab.ok('runp', pods.host) };
    const floods: { id: string; log: string }[] = [];
    const followers: LogFollower[] = [];
    for (const [pod, name, command, more] of [
      ['own', 'blocks', flood, {}],
      ['own', 'lines', lines, {}],
      ['host', 'relayed', flood, { linux: { security_context: { namespace_options: { pid: 2 } } } }],
    ] as const) {
      const config = lab.container(name, ['sh', '-c', command], { mounts, ...more });
      const id = await lab.ok('create', podIds[pod], config, pods[pod]);
      await lab.ok('start', id);
      floods.push({ id, log: logOf(pod, name) });
      followers.push(new LogFollower(logOf(pod, name)));
    }
    const shorts: { id: string; log: string }[] = [];
    for (let round = 0; round < rounds; round++) {
      const name = `short${round}`;
      const id = await lab.ok('create', podIds.own, lab.container(name, ['sh', '-c', short]), pods.own);
      await lab.ok('start', id);
      shorts.push({ id, log: logOf('own', name) });
      await sleep(random.between(0, 150));
      if (round === rounds - 1) writeFileSync(path.join(control, 'stop'), '');
      await lab.daemon.kill();
      await sleep(random.between(0, 100));
      await lab.daemon.start();
    }
    for (const { id } of [...floods, ...shorts]) await exited(id);
    for (const follower of followers) await follower.end();
    for (const log of [...floods.map(({ log }) => log), ...followers.map(({ copy }) => copy)]) {
      const counts = await readNumbered(log);
      assert.ok(counts.stdout > 1000 && counts.stderr > 300, `${log}: ${JSON.stringify(counts)}`);
    }
    for (const { log } of shorts) assert.equal((await readNumbered(log)).stdout, 20_000, log);
    const left = readdirSync(path.join(lab.daemon.state, 'io.containerd.grpc.v1.cri/containers')).filter((id) =>
      existsSync(path.join(lab.daemon.state, 'io.containerd.grpc.v1.cri/containers', id, 'log')),
    );
    assert.deepEqual(left, []);
  });
});

/** Checks that each stream has the lines 0, 1, 2 … and then says how many there were. */
async function readNumbered(file: string): Promise<{ stdout: number; stderr: number }> {
  const counts = { stdout: 0, stderr: 0 };
  const parts = { stdout: '', stderr: '' };
  const ends = { stdout: false, stderr: false };
  for await (const line of createInterface({ input: createReadStream(file, 'latin1') })) {
    const found = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)$/.exec(line);
    assert.ok(found, `${file}: torn after ${JSON.stringify(counts)}: ${line.slice(0, 200)}`);
    const name = found[1] as 'stdout' | 'stderr';
    parts[name] += found[3];
    if (found[2] === 'P') continue;
    const text = parts[name];
    parts[name] = '';
    if (text.startsWith('end ')) {
      ends[name] = true;
      if (name === 'stdout') assert.equal(text, `end ${counts.stdout}`, file);
      continue;
    }
    assert.ok(!ends[name], `${file}: a line after the last one`);
    const expected = `${name[3]}${counts[name]} `;
    assert.ok(text.startsWith(expected), `${file}: ${name} "${text.slice(0, 80)}" instead of "${expected}"`);
    counts[name]++;
  }
  assert.ok(ends.stdout, `${file} has no end: ${JSON.stringify(counts)}`);
  assert.deepEqual(parts, { stdout: '', stderr: '' }, file);
  return counts;
}
