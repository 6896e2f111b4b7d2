// Pods of Kubernetes whose sandboxes the shim runs (sandboxer `shim`): crictl against our daemon, and against containerd 2.3.4, both with
// our shim.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { CriLab, crictl } from '../lib/cri-lab.ts';
import { bin } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

process.env['CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS'] = '1';
const sandboxes = 'io.containerd.sandbox.controller.v1.shim/k8s.io';
const namespaceOf = (pid: number, kind: string) => readlinkSync(`/proc/${pid}/ns/${kind}`);
const shimOf = (pid: number) => /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];

describe('pods in the shim, under our daemon', { skip: CriLab.missing() }, () => {
  const temp = makeTempDir('crishim');
  const runtime = `[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.pods]
  runtime_type = 'io.containerd.gantry.v1'
  sandboxer = 'shim'
`;
  const lab = new CriLab(temp.path, { bridge: 'gantrysb0', subnet: '10.223.0.0/24' }, runtime);

  before(async () => {
    await lab.start();
    await lab.ok('pull', 'busybox:1');
  });
  after(async () => {
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    await temp.remove();
  });

  test('its containers share what the pod says, in one shim, without a pause image; nothing is left', async () => {
    const linux = { security_context: { namespace_options: { pid: 0 } } };
    const pod = lab.pod('one', { hostname: 'podhost', linux: { ...linux, sysctls: { 'net.ipv4.ip_forward': '1' } } });
    const podId = await lab.ok('runp', '--runtime', 'pods', pod);
    const { status } = await lab.json<{ status: { state: string; network: { ip: string } } }>('inspectp', podId);
    assert.equal(status.state, 'SANDBOX_READY');
    assert.match(status.network.ip, /^10\.223\.0\.\d+$/);
    const pids: number[] = [];
    for (const name of ['a', 'b']) {
      const config = lab.container(name, ['sleep', '1000'], { linux });
      const id = await lab.ok('create', podId, config, pod);
      await lab.ok('start', id);
      pids.push((await lab.json<{ info: { pid: number } }>('inspect', id)).info.pid);
    }
    const [a, b] = pids as [number, number];
    for (const kind of ['net', 'pid', 'ipc', 'uts']) assert.equal(namespaceOf(a, kind), namespaceOf(b, kind));
    assert.notEqual(namespaceOf(a, 'mnt'), namespaceOf(b, 'mnt'));
    const inside = async (...args: string[]) => (await run('nsenter', ['-t', String(a), '-n', '-u', ...args])).stdout;
    assert.equal(await inside('hostname'), 'podhost\n');
    assert.match(await inside('ip', '-o', 'address'), new RegExp(status.network.ip.replaceAll('.', '\\.')));
    const [sandbox] = readdirSync(path.join(lab.daemon.state, sandboxes));
    assert.equal(sandbox, podId);
    assert.equal(shimOf(a), shimOf(b));
    await lab.daemon.kill();
    await lab.daemon.start();
    const again = await lab.json<{ status: { state: string } }>('inspectp', podId);
    assert.equal(again.status.state, 'SANDBOX_READY');
    await lab.ok('stopp', podId);
    await lab.ok('rmp', podId);
    assert.deepEqual(readdirSync(path.join(lab.daemon.state, sandboxes)), []);
    assert.deepEqual(mountsBeneath(path.join(lab.daemon.state, sandboxes)), []);
  });
});

describe('pods in our shim, under containerd 2.3.4', {
  skip: CriLab.missing() || TestContainerd.missing(containerd2),
}, () => {
  const temp = makeTempDir('crishimc');
  const image = 'docker.io/test/busybox:1';
  const config = `[plugins.'io.containerd.shim.v1.manager']
  socket_dir = '${temp.path}/s'
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = '${image}'
  restrict_oom_score_adj = true
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    conf_dir = '${temp.path}/cni'
  [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.pods]
    runtime_type = 'io.containerd.gantry.v1'
    sandboxer = 'shim'
  [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.streams]
    runtime_type = 'io.containerd.gantry.v1'
    sandboxer = 'shim'
    io_type = 'streaming'
`;
  const env = { PATH: `${temp.path}:${process.env['PATH']}`, GANTRY_SHIM_LINGER_MS: '200' };
  const daemon = new TestContainerd(path.join(temp.path, 'd'), containerd2, env, config);
  const ok = async (...args: string[]) => {
    const endpoint = `unix://${daemon.address}`;
    return (await run(crictl, ['-r', endpoint, '-i', endpoint, '-t', '60s', ...args])).stdout.trim();
  };
  const file = (name: string, content: object) => {
    writeFileSync(path.join(temp.path, `${name}.json`), JSON.stringify(content));
    return path.join(temp.path, `${name}.json`);
  };

  before(async () => {
    mkdirSync(path.join(temp.path, 'cni'));
    symlinkSync(bin.shim, path.join(temp.path, 'containerd-shim-gantry-v1'));
    const archive = await busyboxArchive(temp.path, image);
    await daemon.start();
    await run(path.join(path.dirname(containerd2), 'ctr'), [
      '-a',
      daemon.address,
      '-n',
      'k8s.io',
      'images',
      'import',
      archive,
    ]);
    await eventually('the image is known', async () =>
      (await ok('images')).includes('test/busybox') ? true : undefined,
    );
  });
  after(async () => {
    await ok('rmp', '-a', '-f').catch(() => undefined);
    await daemon.stop();
    await temp.remove();
  });

  const lifeOf = async (runtime: string) => {
    const linux = { security_context: { namespace_options: { network: 2, pid: 0 } } };
    const pod = file('pod', { metadata: { name: 'p', namespace: 'n', uid: 'u' }, log_directory: temp.path, linux });
    const podId = await ok('runp', '--runtime', runtime, pod);
    const command = ['sh', '-c', 'echo ready; sleep 1000'];
    const container = { metadata: { name: 'c' }, image: { image }, command, log_path: `${runtime}.log`, linux };
    const id = await ok('create', podId, file('container', container), pod);
    await ok('start', id);
    await eventually('it is ready', async () => (await ok('logs', id)) === 'ready' || undefined);
    // The pod's own process is the first of the namespace.
    assert.equal(await ok('exec', id, 'cat', '/proc/1/cmdline'), '/pause\0');
    assert.match(await ok('pods', '--state', 'ready', '-q'), new RegExp(podId.slice(0, 12)));
    await ok('stopp', podId);
    assert.equal(await ok('pods', '--state', 'ready', '-q'), '');
    await ok('rmp', podId);
    assert.deepEqual(readdirSync(path.join(daemon.directory, 'state', sandboxes)), []);
    await eventually('the shim has gone', () =>
      readdirSync(path.join(temp.path, 's')).length === 0 ? true : undefined,
    );
  };

  test('from beginning to end', () => lifeOf('pods'));
  test('from beginning to end, with streams in place of FIFOs', () => lifeOf('streams'));
});
