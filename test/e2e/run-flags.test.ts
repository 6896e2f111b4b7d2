// Ways to run that need more than an image and a name, and programs that come as an image: ours and containerd's own ctr.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive, busyboxLayer } from '../lib/images.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const newRunc = path.resolve(import.meta.dirname, '../../.cache/go-bin/new/runc');
const skip = process.getuid?.() === 0 ? false : 'containers need root';

describe('flags of ctr run, and ctr install', { skip }, () => {
  const temp = makeTempDir('run-flags');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const image = 'x/busybox:1';
  const archive = path.join(temp.path, 'busybox.tar');
  const rootfs = path.join(temp.path, 'rootfs');

  before(async () => {
    await busyboxArchive(temp.path, image);
    // A container's root that is nobody here has to get through to its files.
    chmodSync(temp.path, 0o711);
    mkdirSync(rootfs);
    busyboxLayer(rootfs);
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await temp.remove();
  });

  const dumps: string[] = [];
  const wanted = ctrClients().filter(({ name }) => name === 'our ctr' || name === 'ctr 2.3.4');
  for (const client of wanted) describe(client.name, { skip: client.missing ?? false }, () => clientTests(client));

  function clientTests(client: CtrClient): void {
    const ctr = new CtrSession(client, daemon.address, client.own ? 'own' : 'theirs');

    test('a device by its CDI name', async () => {
      await ctr.ok('images', 'import', archive);
      // The directories of run time are the machine's: ctr has no flag for others.
      const name = `gantry-test-${process.pid}-${client.own ? 'own' : 'theirs'}`;
      const file = `/var/run/cdi/${name}.yaml`;
      mkdirSync('/var/run/cdi', { recursive: true });
      writeFileSync(
        file,
        `cdiVersion: 0.6.0
kind: example.com/${name}
devices:
  - name: zero
    containerEdits:
      env: [CDI=injected]
      deviceNodes: [{ path: /dev/nothing, hostPath: /dev/null }]
`,
      );
      try {
        const device = `example.com/${name}=zero`;
        const script = 'echo $CDI; ls -l /dev/nothing; echo x > /dev/nothing && echo written';
        const shown = await ctr.ok('run', '--rm', '--device', device, image, `cdi-${client.own}`, 'sh', '-c', script);
        assert.match(shown, /^injected\ncrw.* 1, +3 .*\/dev\/nothing\nwritten\n$/);
        const missing = await ctr.try('run', '--rm', '--device', `${device}x`, image, `cdi-${client.own}-x`, 'true');
        assert.notEqual(missing.code, 0);
        assert.match(missing.stderr, new RegExp(`unresolvable CDI devices ${device}x`));
      } finally {
        rmSync(file);
      }
    });

    test('programs are installed, and not over others unless told to', async () => {
      await ctr.ok('images', 'import', archive);
      const directory = path.join(temp.path, `install-${client.own}`);
      mkdirSync(directory);
      await ctr.ok('install', '--path', directory, image);
      assert.equal(statSync(path.join(directory, 'bin/busybox')).mode & 0o111, 0o111);
      assert.ok(!existsSync(path.join(directory, 'etc')), 'nothing but bin');
      const again = await ctr.try('install', '--path', directory, image);
      assert.equal(again.code, 1);
      assert.match(again.stderr, /cannot replace bin\/\w+ in /);
      await ctr.ok('install', '--replace', '--path', directory, image);
    });

    test('a directory is a root filesystem', async () => {
      const printed = await ctr.ok('run', '--rm', '--rootfs', rootfs, 'plain', '/bin/sh', '-c', 'echo in $(/bin/ls /)');
      assert.match(printed, /^in bin dev etc proc /);
    });

    for (const runtime of ['runc', newRunc])
      test(`user ids are mapped, by changing owners or by the snapshotter: ${path.basename(path.dirname(runtime))}/runc`, {
        skip: runtime === 'runc' || existsSync(runtime) ? false : 'runc 1.4 is not in .cache/go-bin/new',
      }, async () => {
        const map = ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536'];
        for (const how of [[], ['--remap-labels']]) {
          const args = ['run', '--rm', '--runc-binary', runtime, ...map, ...how, image, 'mapped', 'sh', '-c'];
          const printed = await ctr.ok(...args, 'cat /proc/self/uid_map; touch /x; ls -ln /bin/busybox /x');
          assert.match(printed, /^ *0 +100000 +65536$/m);
          assert.equal(printed.match(/ 0 +0 .* \/(bin\/busybox|x)$/gm)?.length, 2, printed);
        }
      });

    test('how the root is mounted, and devices', async () => {
      const inside = (...args: string[]) => ctr.ok('run', '--rm', ...args);
      if (existsSync(newRunc)) {
        const args = ['--runc-binary', newRunc, '--rootfs-propagation', 'shared', image, 'p'];
        assert.match(await inside(...args, 'head', '-n1', '/proc/self/mountinfo'), / shared:\d+ /);
      }
      assert.equal(await inside('--no-pivot', image, 'n', 'echo', 'no pivot'), 'no pivot\n');
      const readOnly = await ctr.try('run', '--rm', '--read-only', image, 'r', 'touch', '/x');
      assert.match(readOnly.stderr, /Read-only file system/);
      assert.match(await inside('--device', '/dev/full', image, 'd', 'ls', '-l', '/dev/full'), /1, +7 .*\/dev\/full/);
      const none = await ctr.try('run', '--rm', '--device', '/dev/no-such', image, 'd2', 'true');
      assert.equal(none.code, 1);
      const bad = await ctr.try('run', '--rm', '--rootfs-propagation', 'odd', image, 'o', 'true');
      assert.match(bad.stderr, /rootfsPropagation=odd is not supported/);
    });

    test('a systemd that does not run makes no cgroups, and a profile of AppArmor needs one', {
      skip: existsSync('/run/systemd/system') || existsSync('/sys/kernel/security/apparmor') ? 'they are here' : false,
    }, async () => {
      const args = ['--runc-systemd-cgroup', '--cgroup', 'system.slice:gantry:x'];
      const { stderr } = await ctr.try('run', '--rm', ...args, image, 's', 'true');
      assert.match(stderr, /systemd not running on this host, cannot use systemd cgroups manager/);
      const profile = await ctr.try('run', '--rm', '--apparmor-default-profile', 'gantry-test', image, 'a', 'true');
      assert.match(profile.stderr, /apparmor\/profiles: no such file or directory/);
    });

    test('the spec in a file, and the container runs', async () => {
      const file = path.join(temp.path, `spec-${client.own}.json`);
      assert.equal(await ctr.ok('run', '--rm', '--dump-config', file, image, 'dump', 'echo', 'runs'), 'runs\n');
      dumps.push(readFileSync(file, 'utf8').replaceAll(/"[^"]*\/dump"/g, '"of the container"'));
      if (dumps.length === 2) assert.equal(dumps[0], dumps[1], 'to the letter');
    });

    test('classes of block I/O, and GPUs that are not there', async () => {
      const classes = path.join(temp.path, `classes-${client.own}.yaml`);
      writeFileSync(
        classes,
        "Classes:\n  slow:\n  - Weight: '80'\n  - Devices: ['/dev/vd[a-z]', '/dev/null']\n    ThrottleReadBps: 60M\n",
      );
      const blockIo = ['--blockio-config-file', classes, '--blockio-class'];
      await ctr.ok('containers', 'create', ...blockIo, 'slow', image, 'io', 'true');
      const spec = JSON.parse(await ctr.ok('containers', 'info', '--spec', 'io')) as {
        linux: { resources: { blockIO: { weight: number; throttleReadBpsDevice?: { rate: number }[] } } };
      };
      assert.equal(spec.linux.resources.blockIO.weight, 80);
      for (const { rate } of spec.linux.resources.blockIO.throttleReadBpsDevice ?? []) assert.equal(rate, 60_000_000);
      await ctr.ok('containers', 'rm', 'io');
      const fails = async (reason: RegExp, ...flags: string[]): Promise<void> => {
        const { code, stderr } = await ctr.try('run', '--rm', ...flags, image, 'bad', 'true');
        assert.equal(code, 1);
        assert.match(stderr, reason);
        await ctr.try('snapshots', 'rm', 'bad');
      };
      await fails(/no OCI BlockIO parameters for class "fast"/, ...blockIo, 'fast');
      await fails(/failed to read config file "\/nope": open \/nope: no such file/, '--blockio-config-file', '/nope');
      if (!existsSync('/etc/cdi') && !existsSync('/var/run/cdi'))
        await fails(/no known GPU vendor detected/, '--gpus', '0');
    });

    test('a network by CNI', { skip: existsSync('/usr/lib/cni/bridge') ? false : 'no CNI plugins' }, async () => {
      const bridge = `gantry${process.pid % 10_000}${client.own ? 'o' : 't'}`;
      const lab = path.join(temp.path, `cni-${client.own}`);
      mkdirSync(path.join(lab, 'net.d'), { recursive: true });
      const ranges = [[{ subnet: `10.${client.own ? 217 : 218}.${process.pid % 250}.0/24` }]];
      const ipam = { type: 'host-local', ranges, dataDir: path.join(lab, 'ipam') };
      const plugins = [{ type: 'bridge', bridge, isGateway: true, ipam }];
      writeFileSync(
        path.join(lab, 'net.d/10-lab.conflist'),
        JSON.stringify({ cniVersion: '1.0.0', name: 'lab', plugins }),
      );
      // The places of the configuration are fixed, so ctr gets a view of the machine of its own.
      const view =
        `mount -t tmpfs none /opt && mkdir -p /opt/cni && ln -s /usr/lib/cni /opt/cni/bin && ` +
        `mount -t tmpfs none /etc/cni && ln -s ${lab}/net.d /etc/cni/net.d && exec "$0" "$@"`;
      const viewed = (...args: string[]) =>
        run('unshare', ['-m', 'sh', '-c', view, client.file, ...ctr.arguments(args)], { mayFail: true });
      const leases = () => readdirSync(path.join(lab, 'ipam/lab')).filter((name) => /^[\d.]+$/.test(name)).length;
      mkdirSync('/etc/cni', { recursive: true });
      try {
        const { stdout, stderr } = await viewed('run', '--rm', '--cni', image, 'net', 'cat', '/proc/net/dev');
        assert.match(stdout, /^ *eth0:/m, stderr);
        assert.equal(leases(), 0, 'taken down with the container');
        assert.equal((await viewed('run', '-d', '--cni', image, 'net2', 'sleep', '1000')).code, 0);
        assert.equal(leases(), 1);
        const cached = `/var/lib/cni/results/lab-${ctr.namespace}-net2-eth0`;
        assert.ok(existsSync(cached), 'its result is where everyone looks');
        await viewed('tasks', 'kill', '-s', 'KILL', 'net2');
        assert.equal(leases(), 0, 'taken down by kill');
        assert.ok(!existsSync(cached));
        await eventually(
          'it has ended',
          async () => /net2 +\d+ +STOPPED/.test(await ctr.ok('tasks', 'ls')) || undefined,
        );
        await ctr.try('tasks', 'rm', 'net2');
        await ctr.ok('containers', 'rm', 'net2');
      } finally {
        await run('ip', ['link', 'del', bridge], { mayFail: true });
      }
    });
  }

  test('an image with other owners is made once, whichever client makes it', {
    skip: wanted.find(({ missing }) => missing)?.missing ?? false,
  }, async () => {
    const map = ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536'];
    const seen: string[][] = [];
    for (const [index, client] of wanted.entries()) {
      const ctr = new CtrSession(client, daemon.address, 'remapped');
      await ctr.ok('images', 'import', archive);
      await ctr.ok('run', '-d', ...map, image, `c${index}`, 'sleep', '1000');
      const lines = (await ctr.ok('snapshots', 'ls')).split('\n').filter((line) => line.trim().endsWith('Committed'));
      seen.push(lines.map((line) => line.split(' ')[0]!).sort());
    }
    assert.equal(seen[0]!.length, 2, 'the image’s, and that with other owners');
    assert.deepEqual(seen[1], seen[0]);
    const ctr = new CtrSession(wanted[0]!, daemon.address, 'remapped');
    for (const index of wanted.keys()) {
      await ctr.try('tasks', 'rm', '-f', `c${index}`);
      await ctr.ok('containers', 'rm', `c${index}`);
    }
  });
});
