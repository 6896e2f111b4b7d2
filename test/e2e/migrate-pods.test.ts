// Pods that crictl has made under containerd's CRI plugin, taken over by ours, where they are the same pods, and given back to it.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client } from '@gantry/client';
import { ctrClients } from '../lib/clients.ts';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { Migration } from '../lib/migration.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const crictl = path.resolve(import.meta.dirname, '../../.cache/go-bin/crictl');
const image = 'docker.io/test/pod:1';

for (const { name, program, client } of [
  { name: 'containerd 1.6', program: '/usr/bin/containerd', client: 'ctr 1.6' },
  { name: 'containerd 2.3.4', program: containerd2, client: 'ctr 2.3.4' },
]) {
  const ctr = ctrClients().find((one) => one.name === client)!;
  const missing = TestContainerd.missing(program) || ctr.missing || (!existsSync(crictl) && 'crictl is not installed');
  const skip = process.getuid?.() === 0 ? missing || false : 'containers need root';

  describe(`pods of ${name}`, { skip }, () => {
    const temp = makeTempDir('pods');
    const it = new Migration(temp.path, program, 'k8s.io', ctr, {
      config: `[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = '${image}'
  disable_tcp_service = true
  # Where this runs inside a container itself.
  restrict_oom_score_adj = true
  stream_server_port = '0'
[plugins.'io.containerd.grpc.v1.cri'.cni]
  conf_dir = '${temp.path}/cni'
  bin_dir = '${temp.path}/cni'
`,
      ours: `[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  conf_dir = '${temp.path}/cni'
  bin_dirs = ['${temp.path}/cni']
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '${image}'
`,
    });
    const { containerd, daemon } = it;
    let at = containerd.address;
    const cri = async (...args: string[]): Promise<string> => {
      const address = `unix://${at}`;
      return (await run(crictl, ['-r', address, '-i', address, '-t', '30s', ...args])).stdout.trim();
    };
    const file = (label: string, content: object): string => {
      const full = path.join(temp.path, label);
      writeFileSync(full, JSON.stringify(content));
      return full;
    };
    const logs = path.join(temp.path, 'logs');
    const log = path.join(logs, 'main.log');
    const script =
      'echo started; echo from before >/dev/shm/shared; while ! [ -f /outside/go ]; do sleep 0.2; done; echo said more; sleep 100000';
    const inside = (name: string) => ({
      metadata: { name },
      image: { image },
      command: ['sh', '-c', script],
      log_path: `${name}.log`,
      mounts: [{ container_path: '/outside', host_path: temp.path }],
      linux: { security_context: { namespace_options: { network: 2, pid: 1 } } },
    });
    let podFile = '';
    let started: Record<string, string> = {};
    let pod = '';
    let container = '';
    let lists: Record<string, string[]>;
    let tasks: Record<string, { pid: number; state: string }>;
    let sandboxes: unknown[] = [];

    async function records(address: string): Promise<unknown[]> {
      await using on = await Client.connect({ address, namespace: 'k8s.io' });
      const found = program === containerd2 ? await on.sandboxes.list() : [];
      // Added for our CRI plugin, which looks for it there.
      for (const { extensions } of found)
        delete (extensions as Record<string, unknown>)['io.cri-containerd.sandbox.metadata'];
      return found;
    }

    before(async () => {
      const layout = path.join(temp.path, 'image');
      await buildImage(layout, [busyboxLayer], { Cmd: ['sleep', '100000'], Env: ['PATH=/bin'] });
      // CRI wants an image's whole name.
      const index = path.join(layout, 'index.json');
      writeFileSync(index, readFileSync(index, 'utf8').replace('"latest"', JSON.stringify(image)));
      await run('tar', ['-C', layout, '-cf', `${layout}.tar`, '.']);
      mkdirSync(logs);
      mkdirSync(path.join(temp.path, 'cni'));
      await containerd.start();
      await it.before.ok('images', 'import', `${layout}.tar`);
      const config = {
        metadata: { name: `pod-${process.pid}`, namespace: 'default', uid: `uid-${process.pid}`, attempt: 1 },
        log_directory: logs,
        // A pod in the machine's own network needs no CNI.
        linux: { security_context: { namespace_options: { network: 2, pid: 1 } } },
      };
      podFile = file('pod.json', config);
      await eventually(
        'the CRI plugin knows the image',
        async () => {
          return (await cri('images', '-q', image)) !== '' || undefined;
        },
        60_000,
      );
      pod = await cri('runp', podFile);
      container = await cri('create', '--no-pull', pod, file('container.json', inside('main')), podFile);
      await cri('start', container);
      await eventually(
        'it has said something',
        () => {
          return (existsSync(log) && readFileSync(log, 'utf8').includes('started')) || undefined;
        },
        60_000,
      );
      started = JSON.parse(await cri('inspect', container)).status;
      lists = await it.lists(it.before);
      tasks = await it.tasks(it.before);
      sandboxes = await records(containerd.address);
    });

    after(async () => {
      await daemon.stop();
      await containerd.stop();
      await containerd.start();
      try {
        at = containerd.address;
        await cri('rmp', '-f', pod);
      } finally {
        await containerd.stop();
      }
      await temp.remove();
    });

    test('are there as records and as tasks, each with its processes', async () => {
      await containerd.stop();
      const { code, stdout, stderr } = await it.migrate('--format', 'json');
      assert.deepEqual([code, stderr], [0, '']);
      const report = JSON.parse(stdout) as { notTaken: string[]; features: { name: string; usedBy: string }[] };
      assert.deepEqual(report.notTaken, []);
      assert.equal(report.features.find((one) => one.name === 'Kubernetes (CRI)')?.usedBy, '1 pod, 1 container');
      await daemon.start();
      const found = await it.lists(it.after);
      // Here each pod has a lease; in containerd 1.6 it had none.
      found['leases ls'] = found['leases ls']!.filter((row) => !row.includes('io.gantry.cri.sandbox'));
      assert.deepEqual(found, lists);
      assert.deepEqual(await it.tasks(it.after), tasks);
      assert.deepEqual(Object.keys(tasks).sort(), [container, pod].sort());
      if (program === containerd2) assert.deepEqual(await records(daemon.address), sandboxes);
      await using on = await Client.connect({ address: daemon.address, namespace: 'k8s.io' });
      const { extensions } = await on.containers.get(container);
      assert.ok('io.cri-containerd.container.metadata' in extensions);
      assert.equal(await it.after.ok('tasks', 'exec', '--exec-id', 'e', container, 'echo', 'inside'), 'inside\n');
    });

    test('and to the kubelet’s client they are the same pods', async () => {
      at = daemon.address;
      assert.equal(await cri('pods', '-q', '--no-trunc', '--state', 'Ready'), pod);
      assert.equal(await cri('ps', '-q', '--no-trunc'), container);
      const { status } = JSON.parse(await cri('inspect', container)) as { status: Record<string, string> };
      assert.deepEqual([status['startedAt'], status['createdAt']], [started['startedAt'], started['createdAt']]);
      assert.equal(await cri('exec', '-s', container, 'echo', 'by the kubelet'), 'by the kubelet');
      writeFileSync(path.join(temp.path, 'go'), '');
      await eventually('its log goes on', () => readFileSync(log, 'utf8').includes('said more') || undefined, 60_000);
      const later = await cri('create', '--no-pull', pod, file('later.json', inside('later')), podFile);
      await cri('start', later);
      assert.equal(await cri('exec', '-s', later, 'cat', '/dev/shm/shared'), 'from before');
      await cri('rm', '-f', later);
    });

    test('and containerd’s CRI plugin has them again', async () => {
      at = containerd.address;
      assert.equal((await it.migrate('--back')).code, 0);
      await containerd.start();
      await eventually(
        'CRI answers',
        async () => {
          const address = `unix://${containerd.address}`;
          const { code } = await run(crictl, ['-r', address, '-i', address, 'version'], { mayFail: true });
          return code === 0 || undefined;
        },
        60_000,
      );
      assert.equal(await cri('pods', '-q', '--no-trunc', '--state', 'Ready'), pod);
      assert.equal(await cri('ps', '-q', '--no-trunc'), container);
      assert.deepEqual(await it.tasks(it.before), tasks);
      assert.equal(await cri('exec', container, 'echo', 'still'), 'still');
    });
  });
}
