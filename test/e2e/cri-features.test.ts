// What a pod or container asks for, as it is found inside: by crictl's configurations, one daemon for all.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, test } from 'node:test';
import { writeArtifact } from '../lib/artifact.ts';
import { CriLab, crictl } from '../lib/cri-lab.ts';
import { bin } from '../lib/daemon.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { eventually, freePort, run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const newRunc = path.resolve(import.meta.dirname, '../../.cache/go-bin/new/runc');
const patience = 60_000;

interface Inspect {
  status: { state: string; resources: { linux: Record<string, unknown> }; user: { linux: Record<string, unknown> } };
  info: { pid: number; snapshotter: string };
}

describe('what pods and containers ask for', { skip: CriLab.missing() }, async () => {
  const temp = makeTempDir('cri-features');
  const tcp = await freePort();
  const classes = path.join(temp.path, 'blockio.yaml');
  const lab = new CriLab(
    temp.path,
    { bridge: 'gantrycri8', subnet: '10.208.0.0/24' },
    `device_ownership_from_security_context = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.native]
  runtime_type = 'io.containerd.runc.v2'
  snapshotter = 'native'
  cgroup_writable = true
  privileged_without_host_devices = true
  pod_annotations = ['pod.test/*']
  container_annotations = ['container.test/*']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.newer]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.newer.options]
  BinaryName = '${newRunc}'
[plugins.'io.containerd.service.v1.tasks-service']
  blockio_config_file = '${classes}'
[plugins.'io.containerd.server.v1.grpc-tcp']
  address = '127.0.0.1:${tcp}'
`,
  );
  let podId = '';
  let pod = '';

  before(async () => {
    // Root of a user namespace has to reach its root file system.
    chmodSync(temp.path, 0o711);
    writeFileSync(classes, 'Classes:\n  slow:\n    - Weight: 80\n');
    await lab.start(async (registry) => {
      await lab.fill(registry);
      const layouts = path.join(temp.path, 'layouts');
      const layers = [busyboxLayer, accountsLayer];
      await buildImage(path.join(layouts, 'accounts'), layers, { Cmd: ['sh'], User: 'worker' });
      await registry.fill(path.join(layouts, 'accounts'), 'library/accounts:1');
      const files = { 'model.txt': 'a model\n', 'data/more.txt': 'more\n' };
      writeArtifact(path.join(layouts, 'artifact'), files);
      await registry.fill(path.join(layouts, 'artifact'), 'library/artifact:1');
      writeArtifact(path.join(layouts, 'hostile'), { '../../escaped': 'out' });
      await registry.fill(path.join(layouts, 'hostile'), 'library/hostile:1');
    });
    for (const image of ['busybox:1', 'accounts:1', 'volumes:1']) await lab.ok('pull', image);
    pod = lab.pod('one', { hostname: 'one' });
    podId = await lab.ok('runp', pod);
  });
  after(() => lab.end(temp));

  let made = 0;
  /** A running container; in a pod of its own with `in`. */
  async function start(more: object, where: { id: string; file: string } = { id: podId, file: pod }): Promise<string> {
    const config = lab.container(`c${++made}`, ['sh', '-c', 'while :; do sleep 1000; done'], more);
    const id = await lab.ok('create', where.id, config, where.file);
    await lab.ok('start', id);
    return id;
  }
  const inside = (id: string, script: string) => lab.ok('exec', '-s', id, 'sh', '-c', script);
  const security = (context: object, more: object = {}) => ({ linux: { security_context: context, ...more } });
  async function otherPod(
    name: string,
    more: Parameters<CriLab['pod']>[1],
    ...flags: string[]
  ): Promise<{ id: string; file: string }> {
    const file = lab.pod(name, more);
    return { id: await lab.ok('runp', ...flags, file), file };
  }
  const refused = async (more: object, where = { id: podId, file: pod }): Promise<string> => {
    const config = lab.container(`c${++made}`, ['true'], more);
    const { code, stderr } = await lab.crictl(['create', where.id, config, where.file], { mayFail: true });
    assert.notEqual(code, 0);
    return stderr.replaceAll('\\"', '"');
  };

  const identity = 'grep -E "^(Uid|Gid|Groups)" /proc/self/status | tr -s "\\t " " "';

  test('users by image, name and number; groups of both policies', async () => {
    const image = { image: { image: 'accounts:1' } };
    const byImage = await start({ ...image, ...security({ supplemental_groups: [7] }) });
    assert.match(await inside(byImage, identity), /Uid: 1000 .*\nGid: 1001 .*\nGroups: 7 50 1001/);
    const strict = await start({ ...image, ...security({ supplemental_groups: [7], supplemental_groups_policy: 1 }) });
    assert.match(await inside(strict, identity), /Groups: 7 1001/);
    const named = await start({ ...image, ...security({ run_as_username: 'other', run_as_group: { value: 9 } }) });
    assert.match(await inside(named, identity), /Uid: 1002 .*\nGid: 9 /);
    const numbered = await start({ ...image, ...security({ run_as_user: { value: 4242 } }) });
    assert.match(await inside(numbered, identity), /Uid: 4242 .*\nGid: 0 /);
    const { status } = await lab.json<Inspect>('inspect', named);
    assert.deepEqual([status.user.linux['uid'], status.user.linux['gid']].map(Number), [1002, 9]);
    assert.match(
      await refused({ ...image, ...security({ run_as_group: { value: 9 } }) }),
      /user group "9" is specified without user/,
    );
  });

  test('capabilities, ambient ones too, no new privileges, a read-only root, and masked paths', async () => {
    const caps = 'grep -E "Cap(Eff|Amb|Bnd)|NoNewPrivs" /proc/self/status | tr -s "\\t " " "';
    const id = await start(
      security({
        run_as_user: { value: 1000 },
        capabilities: { add_ambient_capabilities: ['NET_BIND_SERVICE'], drop_capabilities: ['ALL'] },
        no_new_privs: true,
        readonly_rootfs: true,
        masked_paths: ['/proc/version'],
        readonly_paths: ['/proc/sys'],
      }),
    );
    const told = await inside(id, caps);
    for (const line of [
      'CapEff: 0000000000000400',
      'CapAmb: 0000000000000400',
      'CapBnd: 0000000000000400',
      'NoNewPrivs: 1',
    ])
      assert.ok(told.includes(line), `${line} in ${told}`);
    assert.match(await inside(id, 'touch /x 2>&1; cat /proc/version | wc -c'), /Read-only file system[\s\S]*\n0$/);
    const plain = await start(
      security({ capabilities: { add_capabilities: ['SYS_TIME'], drop_capabilities: ['CHOWN'] } }),
    );
    const effective = BigInt(`0x${/CapEff: (\w+)/.exec(await inside(plain, caps))![1]}`);
    assert.equal((effective >> 25n) & 1n, 1n, 'SYS_TIME');
    assert.equal(effective & 1n, 0n, 'CHOWN');
    const strange = await start(security({ capabilities: { add_capabilities: ['NO_SUCH', 'CAP_SYS_TIME'] } }));
    assert.equal(
      (BigInt(`0x${/CapEff: (\w+)/.exec(await inside(strange, caps))![1]}`) >> 25n) & 1n,
      1n,
      'CAP_SYS_TIME',
    );
  });

  test('privileged, with the host’s devices or without; cgroups may be written where the handler says so', async () => {
    const list =
      'ls /dev | wc -l; awk \'$2 == "/sys/fs/cgroup" || $2 ~ "^/sys/fs/cgroup/" {print $4}\' /proc/mounts | cut -c1-2 | sort -u';
    assert.match(await refused(security({ privileged: true })), /no privileged container allowed in sandbox/);
    const privileged = { linux: { security_context: { privileged: true } } };
    const all = await otherPod('privileged', privileged);
    const few = await otherPod('privileged-few', privileged, '-r', 'native');
    const devices = async (id: string) => Number((await inside(id, list)).split('\n')[0]);
    const host = await start(privileged, all);
    const own = await start(privileged, few);
    const plain = await start({});
    assert.ok((await devices(host)) > (await devices(plain)), 'more devices than a plain one');
    assert.equal(await devices(own), await devices(plain));
    assert.match(await inside(own, 'mknod /null c 1 3; echo x > /null && echo written'), /written/);
    // What is privileged, or has a handler that says so, may make groups of its own.
    const writable = await start({}, await otherPod('writable', {}, '-r', 'native'));
    for (const [id, expected] of [
      [plain, 'ro'],
      [writable, 'rw'],
      [host, 'rw'],
    ] as const)
      assert.equal((await inside(id, list)).split('\n')[1], expected);
    for (const { id } of [all, few]) await lab.ok('rmp', '-f', id);
  });

  test('a handler’s snapshotter is used, for images that were unpacked for another; its annotations are passed on', async () => {
    const where = await otherPod('native', { annotations: { 'pod.test/a': '1', 'other.test/b': '2' } }, '-r', 'native');
    const id = await start({ image: { image: 'accounts:1' }, annotations: { 'container.test/c': '3', d: '4' } }, where);
    const { info } = await lab.json<Inspect & { info: { runtimeSpec: { annotations: Record<string, string> } } }>(
      'inspect',
      id,
    );
    assert.equal(info.snapshotter, 'native');
    const { annotations } = info.runtimeSpec;
    assert.deepEqual(
      [annotations['pod.test/a'], annotations['other.test/b'], annotations['container.test/c'], annotations['d']],
      ['1', undefined, '3', undefined],
    );
    assert.equal(await inside(id, 'id -u; cat /etc/group | wc -l'), '1000\n4');
    await lab.ok('rmp', '-f', where.id);
  });

  test('images as volumes, with a path in them, and not out of them', async () => {
    const mounts = (path: string) => ({
      mounts: [{ container_path: '/volume', image: { image: 'volumes:1' }, image_sub_path: path, readonly: true }],
    });
    const whole = await start(mounts(''));
    assert.match(
      await inside(whole, 'cat /volume/data/kept; touch /volume/x 2>&1 || true'),
      /from the image\n.*Read-only/,
    );
    const part = await start(mounts('data'));
    assert.equal(await inside(part, 'cat /volume/kept'), 'from the image');
    assert.match(await refused(mounts('../..')), /path escapes from parent/);
    assert.match(await refused(mounts('nowhere')), /no such file or directory/);
    assert.match(await refused(mounts('data/kept')), /ImageVolumeMountFailed: .*only directory subpath is supported/);
    assert.match(await refused(mounts('away')), /path escapes from parent/);
    const missing = { container_path: '/volume', image: { image: 'nowhere:1' } };
    assert.match(await refused({ mounts: [missing] }), /readonly must be true/);
    assert.match(await refused({ mounts: [{ ...missing, readonly: true }] }), /not found/);
    await lab.ok('rm', '-f', whole, part);
  });

  test('an image is one mount for all of a pod, volatile, and gone with the pod', async () => {
    const where = await otherPod('image-volumes', {});
    const volume = { mounts: [{ container_path: '/volume', image: { image: 'volumes:1' }, readonly: true }] };
    const first = await start(volume, where);
    await lab.ok('rm', '-f', first);
    const id = await start(volume, where);
    assert.equal(await inside(id, 'cat /volume/data/kept'), 'from the image');
    const mounts = mountsBeneath(path.join(lab.daemon.state, 'io.containerd.grpc.v1.cri/image-volumes', where.id));
    assert.equal(mounts.length, 1, mounts.join());
    const snapshots = async () => {
      const { stdout } = await run(bin.ctr, ['-a', lab.daemon.address, '-n', 'k8s.io', 'snapshots', 'ls']);
      return stdout.split('\n').filter((line) => line.startsWith(mounts[0]!));
    };
    assert.match((await snapshots()).join(), /Active/);
    await lab.ok('stopp', where.id);
    assert.deepEqual(await snapshots(), []);
    assert.deepEqual(mountsBeneath(mounts[0]!), []);
    await lab.ok('rmp', where.id);
  });

  test('artifacts as volumes: files by their titles, and nothing beside them', async () => {
    await lab.ok('pull', 'artifact:1');
    const volume = (image: string, sub = '') => ({
      mounts: [{ container_path: '/volume', image: { image }, image_sub_path: sub, readonly: true }],
    });
    const id = await start(volume('artifact:1'));
    const look = 'cd /volume; cat model.txt data/more.txt; ls; echo x > model.txt';
    assert.match(await inside(id, `${look} 2>&1 || true`), /^a model\nmore\ndata\nmodel\.txt\n\n?.*Read-only/);
    const part = await start(volume('artifact:1', 'data'));
    assert.equal(await inside(part, 'ls /volume'), 'more.txt');
    await lab.ok('pull', 'hostile:1');
    assert.match(await refused(volume('hostile:1')), /artifact with a file of the name "\.\.\/\.\.\/escaped"/);
    const { status } = await lab.json<{ status: { id: string } }>('inspecti', 'artifact:1');
    await lab.ok('rm', '-f', id, part);
    await lab.ok('rmi', status.id);
    assert.notEqual((await lab.crictl(['inspecti', 'artifact:1'], { mayFail: true })).code, 0);
    await lab.ok('rmi', 'hostile:1');
  });

  test('host directories: read-only to the depth, made where they are missing; devices belong to the user', async () => {
    const top = path.join(temp.path, 'host');
    mkdirSync(path.join(top, 'below'), { recursive: true });
    await run('mount', ['-t', 'tmpfs', 'gantry-below', path.join(top, 'below')]);
    try {
      const mount = { host_path: top, readonly: true };
      const id = await start({
        mounts: [
          { ...mount, container_path: '/deep', recursive_read_only: true },
          { ...mount, container_path: '/flat' },
          { host_path: path.join(temp.path, 'made/here'), container_path: '/made' },
        ],
        devices: [{ host_path: '/dev/null', container_path: '/dev/mine', permissions: 'rw' }],
        ...security({ run_as_user: { value: 1000 }, run_as_group: { value: 1001 } }),
      });
      const options = (place: string) => inside(id, `awk '$2 == "${place}" {print $4}' /proc/mounts | cut -c1-2`);
      assert.deepEqual(
        [await options('/deep'), await options('/deep/below'), await options('/flat'), await options('/flat/below')],
        ['ro', 'ro', 'ro', 'rw'],
      );
      assert.ok(existsSync(path.join(temp.path, 'made/here')));
      assert.equal(
        await inside(id, 'stat -c "%u %g" /dev/mine 2>/dev/null || ls -ln /dev/mine | tr -s " " | cut -d" " -f3,4'),
        '1000 1001',
      );
      assert.match(
        await refused({ mounts: [{ container_path: '/x', host_path: top, recursive_read_only: true }] }),
        /recursive read-only mount conflicts with RW mount/,
      );
      await lab.ok('rm', '-f', id);
    } finally {
      await run('umount', [path.join(top, 'below')]);
    }
  });

  test('sysctls, shared memory, names and files of a pod', async () => {
    const where = await otherPod('files', {
      hostname: 'filed',
      dns_config: { servers: ['192.0.2.7'], options: ['ndots:3'] },
      linux: { sysctls: { 'kernel.shm_rmid_forced': '1' } },
    });
    const [first, second] = [await start({}, where), await start({}, where)];
    assert.equal(await inside(first, 'cat /proc/sys/kernel/shm_rmid_forced'), '1');
    assert.equal(await inside(first, 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start'), '0');
    assert.match(await inside(first, 'cat /proc/sys/net/ipv4/ping_group_range'), /^0\s+2147483647$/);
    await inside(first, 'echo shared > /dev/shm/x');
    assert.equal(
      await inside(second, 'cat /dev/shm/x; df -k /dev/shm | tail -1 | tr -s " " | cut -d" " -f2'),
      'shared\n65536',
    );
    assert.equal(await inside(first, 'hostname; cat /etc/hostname'), 'filed\nfiled');
    assert.match(await inside(first, 'cat /etc/resolv.conf'), /nameserver 192\.0\.2\.7\noptions ndots:3/);
    await lab.ok('rmp', '-f', where.id);
  });

  test('limits are changed in place', async () => {
    const id = await start({ linux: { resources: { cpu_shares: 256, memory_limit_in_bytes: 64 << 20 } } });
    await lab.ok('update', '--cpu-share', '512', '--memory', String(96 << 20), id);
    const { status, info } = await lab.json<Inspect>('inspect', id);
    assert.deepEqual([status.resources.linux['cpuShares'], status.resources.linux['memoryLimitInBytes']].map(Number), [
      512,
      96 << 20,
    ]);
    const groups = readFileSync(`/proc/${info.pid}/cgroup`, 'utf8');
    const memory = /^\d+:memory:(.*)$/m.exec(groups)?.[1];
    const file = memory
      ? `/sys/fs/cgroup/memory${memory}/memory.limit_in_bytes`
      : `/sys/fs/cgroup${/^0::(.*)$/m.exec(groups)![1]}/memory.max`;
    assert.equal(Number(readFileSync(file, 'utf8')), 96 << 20);
  });

  test('classes of block I/O and of caches', async () => {
    const class_ = (kind: string, name: string) => ({ annotations: { [`io.kubernetes.cri.${kind}-class`]: name } });
    const id = await lab.ok('create', podId, lab.container('io', ['true'], class_('blockio', 'slow')), pod);
    const { info } = await lab.json<Inspect & { info: { runtimeSpec: { linux: { resources: object } } } }>(
      'inspect',
      id,
    );
    assert.deepEqual((info.runtimeSpec.linux.resources as Record<string, unknown>)['blockIO'], { weight: 80 });
    assert.match(
      await refused(class_('blockio', 'nope')),
      /failed to set blockio class: no OCI BlockIO parameters for class "nope"/,
    );
    assert.match(
      await refused(class_('rdt', 'gold')),
      /failed to set RDT class: RDT not initialized, class "gold" not available/,
    );
  });

  test('a user namespace of the pod’s own, with its volumes in it', {
    skip: existsSync(newRunc) ? false : 'a newer runc is not in .cache/go-bin/new',
  }, async () => {
    const mapping = [{ host_id: 700_000, container_id: 0, length: 65_536 }];
    // With a process 1 of its own: the pod's belongs to another user.
    const options = { namespace_options: { pid: 1, userns_options: { mode: 0, uids: mapping, gids: mapping } } };
    const where = await otherPod('userns', security(options), '-r', 'newer');
    const volume = path.join(temp.path, 'idmapped');
    mkdirSync(volume);
    chownSync(volume, 1000, 1000);
    chmodSync(volume, 0o700);
    const id = await start(
      {
        image: { image: 'volumes:1' },
        mounts: [{ host_path: volume, container_path: '/mine', uidMappings: mapping, gidMappings: mapping }],
        ...security(options),
      },
      where,
    );
    assert.match(await inside(id, 'cat /proc/self/uid_map'), /0\s+700000\s+65536/);
    assert.equal(
      await inside(id, 'touch /mine/by-root; cat /data/kept; ls -ln /mine | tail -1 | tr -s " " | cut -d" " -f3'),
      'from the image\n0',
    );
    assert.equal(
      await inside(id, 'ls -ln /etc/hosts /etc/hostname /etc/resolv.conf | tr -s " " | cut -d" " -f3,4'),
      '0 0\n0 0\n0 0',
      'the pod’s own files are its root’s',
    );
    const streams = 'echo mine > /proc/self/fd/1; echo log > /proc/1/fd/1; echo log > /proc/1/fd/2; echo opened';
    assert.equal(await inside(id, streams), 'mine\nopened', 'streams can be opened by name');
    const { info } = await lab.json<Inspect>('inspect', id);
    assert.match(readFileSync(`/proc/${info.pid}/status`, 'utf8'), /^Uid:\s+700000/m);
    assert.deepEqual(readdirSync(volume), ['by-root']);
    await lab.ok('rmp', '-f', where.id);
  });

  test('images of ctr’s are CRI’s too, names of one image are one, and what is pinned is told', async () => {
    const ctr = (...args: string[]) =>
      run(path.resolve('bin/ctr'), ['-a', lab.daemon.address, '-n', 'k8s.io', ...args]);
    await ctr('images', 'tag', 'docker.io/library/accounts:1', 'docker.io/library/alias:2');
    const { images } = await eventually(
      'the new name is seen',
      async () => {
        const found = await lab.json<{ images: { id: string; repoTags: string[]; pinned: boolean }[] }>(
          'images',
          '-o',
          'json',
        );
        return found.images.some(({ repoTags }) => repoTags.includes('docker.io/library/alias:2')) ? found : undefined;
      },
      patience,
    );
    const named = images.filter(({ repoTags }) => repoTags.some((tag) => /accounts|alias/.test(tag)));
    assert.equal(named.length, 1);
    assert.deepEqual(named[0]!.repoTags.toSorted(), ['docker.io/library/accounts:1', 'docker.io/library/alias:2']);
    assert.deepEqual(
      images.filter(({ pinned }) => pinned).map(({ repoTags }) => repoTags[0]),
      ['registry.k8s.io/pause:3.10.2'],
    );
    const archive = path.join(temp.path, 'brought.tar');
    await ctr('images', 'export', archive, 'docker.io/library/accounts:1');
    await lab.ok('rmi', 'alias:2');
    assert.notEqual((await lab.crictl(['inspecti', 'accounts:1'], { mayFail: true })).code, 0);
    await ctr('images', 'import', '--no-unpack', archive);
    await eventually(
      'the image is seen',
      async () => (await lab.crictl(['inspecti', 'accounts:1'], { mayFail: true })).code === 0 || undefined,
      patience,
    );
    // It was never unpacked: that is done when it is needed.
    assert.equal(await inside(await start({ image: { image: 'accounts:1' } }), 'id -u'), '1000');
  });

  test('on TCP there is no CRI', async () => {
    // crictl speaks to unix sockets only.
    const socket = path.join(temp.path, 'to-tcp.sock');
    const bridge = net.createServer((one) => {
      const other = net.connect(tcp, '127.0.0.1');
      for (const [from, to] of [
        [one, other],
        [other, one],
      ] as const)
        pipeline(from, to).catch(() => undefined);
    });
    bridge.listen(socket);
    await once(bridge, 'listening');
    const ends = ['-r', `unix://${socket}`, '-i', `unix://${socket}`, '-t', '10s'];
    const { code, stderr } = await run(crictl, [...ends, 'pods'], { mayFail: true });
    bridge.close();
    assert.notEqual(code, 0);
    assert.match(stderr, /Unimplemented|unknown service/);
  });
});

/** Accounts that a container can run as. */
function accountsLayer(directory: string): void {
  mkdirSync(path.join(directory, 'etc'), { recursive: true });
  writeFileSync(
    path.join(directory, 'etc/passwd'),
    'root:x:0:0::/root:/bin/sh\nworker:x:1000:1001::/:/bin/sh\nother:x:1002:1002::/:/bin/sh\n',
  );
  writeFileSync(path.join(directory, 'etc/group'), 'root:x:0:\nstaff:x:50:worker\nworker:x:1001:\nother:x:1002:\n');
}
