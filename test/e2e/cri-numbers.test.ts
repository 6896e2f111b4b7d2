// What pods and containers use, as crictl and Prometheus are told.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { eventually, freePort } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const patience = 60_000;

describe('numbers of pods and containers', { skip: CriLab.missing() }, async () => {
  const temp = makeTempDir('cri-numbers');
  const metrics = await freePort();
  const lab = new CriLab(
    temp.path,
    { bridge: 'gantrycri10', subnet: '10.211.0.0/24' },
    `stats_collect_period = '1s'
[plugins.'io.containerd.server.v1.metrics']
  address = '127.0.0.1:${metrics}'
`,
  );
  let podId = '';
  let pod = '';

  before(async () => {
    await lab.start();
    await lab.ok('pull', 'busybox:1');
    pod = lab.pod('one');
    podId = await lab.ok('runp', pod);
  });
  after(() => lab.end(temp));

  async function start(name: string): Promise<string> {
    const config = lab.container(name, ['sh', '-c', 'while :; do sleep 1000; done']);
    const id = await lab.ok('create', podId, config, pod);
    await lab.ok('start', id);
    return id;
  }
  async function otherPod(name: string, context: object = {}): Promise<{ id: string }> {
    return { id: await lab.ok('runp', lab.pod(name, { linux: { security_context: context } })) };
  }

  test('rates are there for the first who asks, as they are sampled', async () => {
    const id = await start('runs');
    const usage = await eventually(
      'a rate is known',
      async () => {
        const { stats } = await lab.json<{ stats: { cpu: { usageNanoCores?: { value: string } } }[] }>(
          'stats',
          '-o',
          'json',
          '--id',
          id,
        );
        return stats[0]?.cpu.usageNanoCores;
      },
      patience,
    );
    assert.ok(Number(usage.value) >= 0);
  });

  test('numbers: metrics of pods with all that containerd tells of, and of CRI itself', async () => {
    const config = lab.container('says', ['echo', 'a line']);
    await lab.ok('start', await lab.ok('create', podId, config, pod));
    const id = await start('counted');
    const told = JSON.parse(await lab.ok('metricsp', '-o', 'json').catch(() => lab.ok('metricsp'))) as {
      podMetrics: {
        containerMetrics: { containerId: string; metrics: { name: string; value: { value: string } }[] }[];
      }[];
    };
    const own = told.podMetrics
      .flatMap(({ containerMetrics }) => containerMetrics)
      .find(({ containerId }) => containerId === id);
    const value = (name: string) =>
      Number(own?.metrics.find((metric) => metric.name === name)?.value?.value ?? Number.NaN);
    assert.ok(value('container_file_descriptors') >= 3);
    assert.ok(value('container_threads') >= 1);
    assert.ok(value('container_fs_limit_bytes') > 0);
    const text = await eventually(
      'the line is counted',
      async () => {
        const found = await (await fetch(`http://127.0.0.1:${metrics}/v1/metrics`)).text();
        return /^containerd_cri_output_entries_total [1-9]/m.test(found) ? found : undefined;
      },
      patience,
    );
    for (const name of [
      'containerd_cri_container_create_seconds_count{runtime="io.containerd.runc.v2"}',
      'containerd_cri_sandbox_runtime_create_seconds_count{runtime="io.containerd.runc.v2"}',
      'containerd_cri_network_plugin_operations_total_total{operation_type="set_up_pod"}',
      'containerd_cri_sandboxed_image_pulls_total{status="success"}',
    ])
      assert.ok(text.includes(name), name);
  });

  test('numbers of pods: a network only where it has a default interface, without which a kubelet fails', async () => {
    const network = async (podId: string) => {
      const { stats } = await lab.json<{ stats: { linux: { network?: { defaultInterface?: { name: string } } } }[] }>(
        ...['statsp', '--id', podId, '-o', 'json'],
      );
      assert.equal(stats.length, 1);
      return stats[0]!.linux.network ?? undefined;
    };
    const own = await otherPod('numbered');
    assert.equal((await network(own.id))?.defaultInterface?.name, 'eth0');
    const host = await otherPod('unnumbered', { namespace_options: { network: 2 } });
    assert.equal(await network(host.id), undefined);
    for (const { id } of [own, host]) await lab.ok('rmp', '-f', id);
  });
});
