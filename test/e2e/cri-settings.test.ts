// CRI's settings turned from their defaults, as pods find them.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

describe('settings of CRI', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('cri-settings');
  const base = path.join(temp.path, 'base.json');
  const lab = new CriLab(
    temp.path,
    { bridge: 'gantrycri9', subnet: '10.209.0.0/24' },
    `ignore_image_defined_volumes = true
netns_mounts_under_state_dir = true
enable_unprivileged_ports = false
enable_unprivileged_icmp = false
unset_seccomp_profile = 'runtime/default'
disable_proc_mount = true
enable_criu = false
disable_hugetlb_controller = false
tolerate_missing_hugetlb_controller = false
max_container_log_line_size = 10
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.based]
  runtime_type = 'io.containerd.runc.v2'
  base_runtime_spec = '${base}'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.placed]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.images'.runtime_platforms.placed]
  platform = 'linux/arm64'
  snapshotter = 'native'
`,
  );
  let podId = '';
  let pod = '';
  const inside = (id: string, script: string) => lab.ok('exec', '-s', id, 'sh', '-c', script);
  async function start(name: string, more: object = {}, where = { id: podId, file: pod }): Promise<string> {
    const config = lab.container(name, ['sh', '-c', 'while :; do sleep 1000; done'], more);
    const id = await lab.ok('create', where.id, config, where.file);
    await lab.ok('start', id);
    return id;
  }

  before(async () => {
    const { stdout } = await run(bin.ctr, ['oci', 'spec']);
    const spec = JSON.parse(stdout) as { process: { rlimits: object[] } };
    spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 123, hard: 124 }];
    writeFileSync(base, JSON.stringify(spec));
    await lab.start();
    for (const image of ['busybox:1', 'volumes:1']) await lab.ok('pull', image);
    pod = lab.pod('set');
    podId = await lab.ok('runp', pod);
  });
  after(() => lab.end(temp));

  test('network namespaces are beneath the state directory, and low ports are root’s', async () => {
    const { info } = await lab.json<{
      info: { runtimeSpec: { linux: { namespaces: { type: string; path: string }[] } } };
    }>('inspectp', podId);
    const netns = info.runtimeSpec.linux.namespaces.find(({ type }) => type === 'network');
    assert.ok(netns?.path.startsWith(`${lab.daemon.state}/io.containerd.grpc.v1.cri/netns/`), netns?.path ?? 'no path');
    const id = await start('ports');
    assert.equal(await inside(id, 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start'), '1024');
    assert.match(await inside(id, 'cat /proc/sys/net/ipv4/ping_group_range'), /^1\s+0$/);
  });

  test('system calls are filtered, and paths masked, where nobody says anything; volumes of images are let be', async () => {
    const id = await start('silent', { image: { image: 'volumes:1' } });
    assert.match(await inside(id, 'grep Seccomp: /proc/self/status'), /2$/);
    assert.equal(await inside(id, 'wc -c < /proc/keys; grep -c " /data " /proc/mounts || true'), '0\n0');
    const open = await start('unconfined', { linux: { security_context: { seccomp: { profile_type: 1 } } } });
    assert.match(await inside(open, 'grep Seccomp: /proc/self/status'), /0$/);
  });

  test('a handler’s base specification is what its containers begin with', async () => {
    const file = lab.pod('based');
    const where = { id: await lab.ok('runp', '-r', 'based', file), file };
    // The hard one: runc 1.1, as Go raises its own soft limit while it sets the container's, now and then leaves that raised.
    assert.equal(await inside(await start('limited', {}, where), 'ulimit -Hn'), '124');
    await lab.ok('rmp', '-f', where.id);
  });

  test('a handler’s snapshotter can be said with the images; its platform has no effect, as with containerd', async () => {
    const file = lab.pod('placed');
    const where = { id: await lab.ok('runp', '-r', 'placed', file), file };
    const id = await start('placed', {}, where);
    const { info } = await lab.json<{ info: { snapshotter: string } }>('inspect', id);
    assert.equal(info.snapshotter, 'native');
    assert.equal(await inside(id, 'echo runs'), 'runs');
    await lab.ok('rmp', '-f', where.id);
  });

  test('a pull for a handler that nobody knows is one for the default', async () => {
    const annotations = { 'io.containerd.cri.runtime-handler': 'nobody' };
    await lab.ok('pull', '--pod-config', lab.pod('unknown', { annotations }), 'busybox:1');
  });

  test('a platform that is none leaves CRI off', async () => {
    const config = "[plugins.'io.containerd.cri.v1.images'.runtime_platforms.odd]\n  platform = 'linux/amd64/v3/x/y'\n";
    const daemon = new TestDaemon(path.join(temp.path, 'odd'), config);
    await daemon.start();
    const { stdout } = await run(bin.ctr, ['-a', daemon.address, 'plugins', 'ls', '-d', 'id==images']);
    await daemon.stop();
    assert.match(
      stdout,
      /unable to parse platform "linux\/amd64\/v3\/x\/y": "x\/y" is an invalid component|unable to parse/,
    );
  });

  test('without CRIU nothing is frozen', async () => {
    const id = await start('warm');
    const { code, stderr } = await lab.crictl(['checkpoint', `--export=${temp.path}/no.tar`, id], { mayFail: true });
    assert.notEqual(code, 0);
    assert.match(stderr, /failed to checkpoint container .*criu support is disabled by configuration/);
    assert.ok(!existsSync(`${temp.path}/no.tar`));
  });

  test('long lines go on in a further one', async () => {
    const id = await lab.ok('create', podId, lab.container('long', ['echo', '0123456789abcde']), pod);
    await lab.ok('start', id);
    const { status } = await lab.json<{ status: { logPath: string } }>('inspect', id);
    const lines = await eventually(
      'both parts are in the log',
      () => {
        const text = readFileSync(status.logPath, 'utf8').trimEnd().split('\n');
        return text.length === 2 ? text.map((line) => line.replace(/^\S+ /, '')) : undefined;
      },
      60_000,
    );
    assert.deepEqual(lines, ['stdout P 0123456789', 'stdout F abcde']);
  });

  const hugetlb =
    existsSync('/sys/fs/cgroup/hugetlb') ||
    (existsSync('/sys/fs/cgroup/cgroup.controllers') &&
      readFileSync('/sys/fs/cgroup/cgroup.controllers', 'latin1').includes('hugetlb'));
  test('limits of huge pages are refused where they cannot be set', {
    skip: hugetlb && 'this machine has hugetlb',
  }, async () => {
    const limits = [{ page_size: '2MB', limit: 1 << 21 }];
    const config = lab.container('huge', ['true'], { linux: { resources: { hugepage_limits: limits } } });
    const { code, stderr } = await lab.crictl(['create', podId, config, pod], { mayFail: true });
    assert.notEqual(code, 0);
    assert.match(stderr, /huge pages limits are specified but hugetlb cgroup controller is missing/);
  });
});
