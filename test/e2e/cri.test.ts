import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const patience = 60_000;

interface ContainerInspect {
  status: { state: string; exitCode: number; reason: string; imageRef: string; logPath: string };
  info: { pid: number };
}

interface PodInspect {
  status: { state: string; network: { ip: string } };
  info: { pid: number; cniResult: { Interfaces: Record<string, { Sandbox: string }> } };
}

describe('crictl against the daemon', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('cri');
  const lab = new CriLab(temp.path, { bridge: 'gantrycri0', subnet: '10.201.0.0/24' });

  before(async () => {
    await lab.start();
    await lab.ok('pull', 'busybox:1');
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  const inspect = (id: string) => lab.json<ContainerInspect>('inspect', id);
  const inspectPod = (id: string) => lab.json<PodInspect>('inspectp', id);
  const addresses = () => readdirSync(`${temp.path}/ipam/gantrycri0`).filter((name) => /^\d/.test(name));

  /** Waits until a container is in a state. */
  const reaches = (id: string, state: string) =>
    eventually(
      `${id} is ${state}`,
      async () => {
        const found = await inspect(id);
        return found.status.state === state ? found : undefined;
      },
      patience,
    );

  test('images: by tag, digest and id, and as ctr sees them', async () => {
    const { images } = await lab.json<{ images: { id: string; repoTags: string[]; repoDigests: string[] }[] }>(
      'images',
      '-o',
      'json',
    );
    const image =
      images.find(({ repoTags }) => repoTags.includes('docker.io/library/busybox:1')) ?? assert.fail('no busybox');
    for (const reference of ['busybox:1', image.repoDigests[0]!, image.id, image.id.slice(7, 20)]) {
      const { status } = await lab.json<{ status: { id: string } }>('inspecti', reference);
      assert.equal(status.id, image.id);
    }
    const names = (await run(path.resolve('bin/ctr'), ['-a', lab.daemon.address, '-n', 'k8s.io', 'images', 'ls', '-q']))
      .stdout;
    for (const name of ['docker.io/library/busybox:1', image.repoDigests[0]!, image.id])
      assert.ok(names.includes(name), name);
    await lab.ok('pull', 'volumes:1');
    await lab.ok('rmi', 'volumes:1');
    assert.notEqual((await lab.crictl(['inspecti', 'volumes:1'], { mayFail: true })).code, 0);
    await lab.ok('pull', 'volumes:1');
  });

  test('images are told as they are, whoever changes them, also after kill -9; one that is removed leaves nothing', async () => {
    const ctr = (...args: string[]) =>
      run(path.resolve('bin/ctr'), ['-a', lab.daemon.address, '-n', 'k8s.io', 'images', ...args]);
    const names = async () => {
      const { images } = await lab.json<{ images: { repoTags: string[]; repoDigests: string[] }[] }>(
        'images',
        '-o',
        'json',
      );
      return images.flatMap(({ repoTags, repoDigests }) => [...repoTags, ...repoDigests]).sort();
    };
    const files = () =>
      [
        'content.v1.content/blobs/sha256',
        'content.v1.content/ingest',
        'content.v1.content/new',
        'snapshotter.v1.overlayfs/snapshots',
      ]
        .map((directory) => `${lab.daemon.root}/io.containerd.${directory}`)
        .flatMap((directory) => readdirSync(directory).map((name) => `${directory}/${name}`));
    await lab.ok('rmi', 'volumes:1');
    const [before, filesBefore] = [await names(), files()];
    const tagged = 'example.com/other:2';
    await ctr('tag', 'docker.io/library/busybox:1', tagged);
    assert.deepEqual(await names(), [...before, tagged].sort());
    await lab.daemon.kill();
    await lab.daemon.start();
    assert.deepEqual(await names(), [...before, tagged].sort());
    await ctr('rm', tagged);
    assert.deepEqual(await names(), before);
    assert.notEqual((await lab.crictl(['inspecti', tagged], { mayFail: true })).code, 0);
    // Killed at moments of a pull that nobody chooses, and at last let through.
    for (const delay of [10, 40, 80]) {
      const pull = lab.crictl(['pull', 'volumes:1'], { mayFail: true });
      await new Promise((resolve) => setTimeout(resolve, delay));
      await lab.daemon.kill();
      await pull;
      await lab.daemon.start();
      const found = await names();
      assert.ok(before.every((name) => found.includes(name)));
    }
    await lab.ok('pull', 'volumes:1');
    assert.ok((await names()).includes('docker.io/library/volumes:1'));
    await lab.ok('rmi', 'volumes:1');
    assert.deepEqual(await names(), before);
    assert.deepEqual(files(), filesBefore);
    await lab.ok('pull', 'volumes:1');
  });

  test('a pod and its container from beginning to end; nothing is left of them', async () => {
    const pod = lab.pod('walk', { hostname: 'walker', dns_config: { servers: ['192.0.2.1'], searches: ['lab.test'] } });
    const config = lab.container('main', ['sh', '-c', 'echo out; echo err >&2; sleep 1000'], {
      envs: [{ key: 'A', value: Buffer.from('B').toString('base64') }],
    });
    const podId = await lab.ok('runp', pod);
    const { status, info } = await inspectPod(podId);
    assert.equal(status.state, 'SANDBOX_READY');
    assert.match(status.network.ip, /^10\.201\.0\.\d+$/);
    const netns = info.cniResult.Interfaces['eth0']!.Sandbox;
    assert.ok(existsSync(netns));
    const id = await lab.ok('create', podId, config, pod);
    assert.equal((await inspect(id)).status.state, 'CONTAINER_CREATED');
    await lab.ok('start', id);
    const looked = await lab.ok(
      'exec',
      '-s',
      id,
      'sh',
      '-c',
      'hostname; cat /etc/resolv.conf /etc/hostname; env; cat /proc/net/dev',
    );
    for (const part of ['walker', 'nameserver 192.0.2.1', 'search lab.test', 'HOSTNAME=walker', 'eth0'])
      assert.ok(looked.includes(part), `${part} in ${looked}`);
    const failed = await lab.crictl(['exec', '-s', id, 'sh', '-c', 'echo no >&2; exit 7'], { mayFail: true });
    assert.match(failed.stdout + failed.stderr, /exited with 7/);
    const log = (await inspect(id)).status.logPath;
    const lines = await eventually(
      'two lines are in the log',
      () => {
        const text = readFileSync(log, 'utf8').trimEnd().split('\n');
        return text.length === 2 ? text.map((line) => line.replace(/^\S+ /, '')).sort() : undefined;
      },
      patience,
    );
    assert.deepEqual(lines, ['stderr F err', 'stdout F out']);
    assert.equal(await lab.ok('ps', '-q'), id);
    await lab.ok('stop', '-t', '1', id);
    const stopped = await inspect(id);
    assert.equal(stopped.status.state, 'CONTAINER_EXITED');
    assert.equal(stopped.status.exitCode, 143);
    await lab.ok('rm', id);
    await lab.ok('stopp', podId);
    assert.equal((await inspectPod(podId)).status.state, 'SANDBOX_NOTREADY');
    assert.ok(!existsSync(netns), 'the network namespace is gone');
    assert.deepEqual(addresses(), []);
    await lab.ok('rmp', podId);
    assert.equal(await lab.ok('pods', '-q'), '');
    assert.deepEqual(mountsBeneath(temp.path), []);
    for (const top of [lab.daemon.root, lab.daemon.state])
      for (const kind of ['sandboxes', 'containers'])
        assert.deepEqual(readdirSync(`${top}/io.containerd.grpc.v1.cri/${kind}`), []);
  });

  test('a volume that an image declares begins with what the image has, and is the container’s own', async () => {
    const pod = lab.pod('volumes');
    const command = ['sh', '-c', 'cat /data/kept; echo more >> /data/kept; sleep 1000'];
    const podId = await lab.ok('runp', pod);
    const outputs: string[] = [];
    for (const name of ['first', 'second']) {
      const id = await lab.ok('create', podId, lab.container(name, command, { image: { image: 'volumes:1' } }), pod);
      await lab.ok('start', id);
      outputs.push(
        await lab.ok(
          'exec',
          '-s',
          id,
          'sh',
          '-c',
          'until grep -q more /data/kept; do sleep 0.1; done; stat -c %a /data/kept 2>/dev/null || ls -l /data/kept',
        ),
      );
      outputs.push(await lab.ok('exec', '-s', id, 'cat', '/data/kept'));
    }
    assert.deepEqual([outputs[1], outputs[3]], ['from the image\nmore', 'from the image\nmore']);
    for (const mode of [outputs[0]!, outputs[2]!]) assert.match(mode, /600|-rw-------/);
    await lab.ok('rmp', '-f', podId);
  });

  test('after kill -9 of the daemon pods and containers are as they are, not as they were', async () => {
    const pod = lab.pod('survivor');
    const podId = await lab.ok('runp', pod);
    const ip = (await inspectPod(podId)).status.network.ip;
    const start = async (name: string, command: string[]): Promise<string> => {
      const id = await lab.ok('create', podId, lab.container(name, command), pod);
      await lab.ok('start', id);
      return id;
    };
    const running = await start('running', ['sh', '-c', 'trap "exit 3" TERM; while :; do echo tick; sleep 0.1; done']);
    const ending = await start('ending', ['sh', '-c', 'sleep 1000']);
    const created = await lab.ok('create', podId, lab.container('created', ['sleep', '1000']), pod);
    const { info } = await inspect(ending);
    await lab.daemon.kill();
    process.kill(info.pid, 'SIGKILL');
    await lab.daemon.start();
    assert.equal((await reaches(ending, 'CONTAINER_EXITED')).status.exitCode, 137);
    assert.equal((await inspect(running)).status.state, 'CONTAINER_RUNNING');
    assert.equal((await inspect(created)).status.state, 'CONTAINER_CREATED');
    assert.deepEqual(
      [(await inspectPod(podId)).status.state, (await inspectPod(podId)).status.network.ip],
      ['SANDBOX_READY', ip],
    );
    assert.equal(await lab.ok('exec', '-s', running, 'echo', 'still here'), 'still here');
    await lab.ok('start', created);
    assert.equal((await inspect(created)).status.state, 'CONTAINER_RUNNING');
    const again = await lab.crictl(['runp', pod], { mayFail: true });
    assert.match(again.stderr, /is reserved for/);
    // The same after an end in order, which ends the daemon and nothing else.
    await lab.daemon.stop();
    await lab.daemon.start();
    assert.equal((await inspect(running)).status.state, 'CONTAINER_RUNNING');
    assert.equal((await inspectPod(podId)).status.state, 'SANDBOX_READY');
    await lab.ok('stop', '-t', '30', running);
    assert.equal((await inspect(running)).status.exitCode, 3);
    await lab.ok('rmp', '-f', podId);
    assert.deepEqual(addresses(), []);
    assert.deepEqual(mountsBeneath(temp.path), []);
  });

  test('a pod whose process died while no daemon was there is not ready, and gives its address back when it is stopped', async () => {
    const pod = lab.pod('orphan');
    const podId = await lab.ok('runp', pod);
    const { info } = await inspectPod(podId);
    await lab.daemon.kill();
    process.kill(info.pid, 'SIGKILL');
    await lab.daemon.start();
    await eventually(
      'the pod is not ready',
      async () => ((await inspectPod(podId)).status.state === 'SANDBOX_NOTREADY' ? true : undefined),
      patience,
    );
    assert.equal(addresses().length, 1);
    await lab.ok('stopp', podId);
    assert.deepEqual(addresses(), []);
    await lab.ok('rmp', podId);
  });

  test('what cannot be made leaves nothing', async () => {
    const bad = await lab.crictl(['runp', '-r', 'nope', lab.pod('bad')], { mayFail: true });
    assert.match(bad.stderr, /no runtime for \\"nope\\" is configured/);
    const pod = lab.pod('half', { linux: { sysctls: { 'no.such.sysctl': '1' } } });
    assert.notEqual((await lab.crictl(['runp', pod], { mayFail: true })).code, 0);
    const named = lab.pod('named', {
      hostname: 'x',
      linux: { security_context: { namespace_options: { network: 2 } } },
    });
    assert.match(
      (await lab.crictl(['runp', named], { mayFail: true })).stderr,
      /unable to set hostname .* without a private UTS namespace/,
    );
    assert.equal(await lab.ok('pods', '-q'), '');
    assert.deepEqual(addresses(), []);
    assert.deepEqual(mountsBeneath(temp.path), []);
    const fine = lab.pod('fine');
    const podId = await lab.ok('runp', fine);
    for (const more of [
      { image: { image: 'nowhere:1' } },
      { linux: { security_context: { run_as_username: 'nobody-at-all' } } },
    ]) {
      assert.notEqual(
        (await lab.crictl(['create', podId, lab.container('x', ['true'], more), fine], { mayFail: true })).code,
        0,
      );
    }
    const id = await lab.ok('create', podId, lab.container('x', ['/no/such/program']), fine);
    assert.match((await lab.crictl(['start', id], { mayFail: true })).stderr, /no such file or directory/);
    const { status } = await inspect(id);
    assert.deepEqual([status.state, status.reason, status.exitCode], ['CONTAINER_EXITED', 'StartError', 128]);
    const info = await lab.json<{ config: { drainExecSyncIOTimeout: string } }>('info');
    assert.equal(info.config.drainExecSyncIOTimeout, '0s');
    await lab.ok('rmp', '-f', podId);
  });
});
