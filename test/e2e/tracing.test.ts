// OpenTelemetry: one trace from a client through the daemon to the registry and the shim, over both of OTLP's protocols.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { traced, tracing } from '@gantry/api';
import { Client } from '@gantry/client';
import { otlpProcessor, startOpenTelemetry } from '@gantry/tracing/open-telemetry.ts';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { type CollectedSpan, OtlpCollector } from '../lib/otlp-collector.ts';
import { eventually } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { RegistryProxy } from '../lib/registry-proxy.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip =
  process.getuid?.() !== 0
    ? 'the daemon needs root'
    : existsSync('/usr/bin/docker-registry')
      ? false
      : 'docker-registry is not installed';
const [own, , theirs] = ctrClients();
const client = theirs!.missing ? own! : theirs!;

/** Whether a span is somewhere below another. */
function isBelow(spans: readonly CollectedSpan[], span: CollectedSpan, above: CollectedSpan): boolean {
  for (let at: CollectedSpan | undefined = span; at; at = spans.find(({ spanId }) => spanId === at!.parentId))
    if (at.spanId === above.spanId) return true;
  return false;
}

function named(spans: readonly CollectedSpan[], name: string, service?: string, kind?: number): CollectedSpan {
  const found = spans.find(
    (span) => span.name === name && span.service === (service ?? span.service) && span.kind === (kind ?? span.kind),
  );
  assert.ok(
    found,
    `no span ${name} of ${service} in ${spans.map((span) => `${span.service} ${span.name}`).join('\n')}`,
  );
  return found;
}

for (const protocol of ['http/protobuf', 'grpc'] as const) {
  describe(`traces over ${protocol}`, { skip: skip || (client.missing ?? false) }, () => {
    const temp = makeTempDir('tracing');
    const daemon = new TestDaemon(path.join(temp.path, 'd'), '', "[debug]\n  format = 'json'\n");
    const ctr = new CtrSession(client, daemon.address, 'tracing');
    let collector: OtlpCollector;
    let registry: TestRegistry;
    let proxy: RegistryProxy;
    let image = '';
    let stop: () => Promise<void>;

    before(async () => {
      collector = await OtlpCollector.start();
      // For the daemon, the shims that it starts, and the client in this process.
      process.env['OTEL_EXPORTER_OTLP_ENDPOINT'] = collector.endpoint(protocol);
      process.env['OTEL_EXPORTER_OTLP_PROTOCOL'] = protocol;
      process.env['OTEL_BSP_SCHEDULE_DELAY'] = '200';
      const { busybox } = await buildTestImages(path.join(temp.path, 'images'), { few: true });
      registry = await TestRegistry.start(temp.path);
      await registry.fill(busybox, 'traced/busybox:1');
      proxy = await RegistryProxy.start(registry.address);
      image = `${proxy.address}/traced/busybox:1`;
      await daemon.start();
      stop = startOpenTelemetry({
        serviceName: 'the client',
        serviceVersion: '1',
        processors: [await otlpProcessor({ protocol }, process.env)],
        environment: process.env,
        warn: (message) => console.error(message),
      });
    });
    after(async () => {
      await stop();
      await ctr.try('tasks', 'rm', '-f', 'web');
      await daemon.stop();
      await proxy.close();
      await registry.close();
      await collector.close();
      await temp.remove();
    });

    test('one trace reaches from the client to the registry, the shim and the runtime', async () => {
      const spans = await traced('the work', { root: true }, async () => {
        await using api = await Client.connect({ address: daemon.address, namespace: 'tracing' });
        await api.transfer.pull(image, { defaultScheme: 'http' });
        await ctr.ok('containers', 'create', image, 'web', 'sleep', '1000');
        const task = await api.tasks.create({ container: 'web' });
        await task.start();
        return tracing()!.ids()!.traceId;
      }).then((traceId) =>
        collector.trace(
          'the whole trace',
          (all) =>
            all.some(({ name }) => name === 'the work') &&
            all.some(({ name, service }) => service === 'gantry-shim' && name === 'containerd.task.v3.Task/Start'),
          traceId,
        ),
      );
      const work = named(spans, 'the work');
      const transfer = named(spans, 'containerd.services.transfer.v1.Transfer/Transfer', 'containerd', 2);
      assert.equal(transfer.attributes['rpc.system'], 'grpc');
      assert.equal(transfer.attributes['namespace'], 'tracing');
      assert.ok(isBelow(spans, transfer, work));
      const pull = named(spans, 'pull.Pull', 'containerd');
      assert.ok(isBelow(spans, pull, transfer));
      const requests = spans.filter(({ name }) => name === 'remotes.docker.resolver.HTTPRequest');
      assert.ok(requests.length >= 3, 'manifest, configuration and layer');
      for (const request of requests) assert.ok(isBelow(spans, request, pull));
      const blob = requests.find(({ attributes }) => String(attributes['url.full']).includes('/blobs/'))!;
      assert.equal(blob.attributes['http.response.status_code'], 200);
      const create = named(spans, 'containerd.services.tasks.v1.Tasks/Create', 'containerd', 2);
      const asked = named(spans, 'containerd.task.v3.Task/Create', 'containerd', 3);
      const answered = named(spans, 'containerd.task.v3.Task/Create', 'gantry-shim', 2);
      const runtime = named(spans, 'runtime.create', 'gantry-shim');
      assert.equal(answered.attributes['rpc.system'], 'ttrpc');
      assert.ok(isBelow(spans, create, work) && isBelow(spans, asked, create));
      assert.equal(answered.parentId, asked.spanId);
      assert.ok(isBelow(spans, runtime, answered));
      // The registry was told where in the trace it is.
      const told = proxy.headers.filter(({ traceparent }) => String(traceparent).includes(work.traceId));
      assert.equal(told.length, proxy.headers.length);
      // And the log tells of the same trace.
      const lines = daemon
        .log()
        .trim()
        .split('\n')
        .filter((line) => line.startsWith('{'));
      const within = lines.map((line) => JSON.parse(line) as Record<string, string>);
      const line = within.find(({ trace_id }) => trace_id === work.traceId);
      assert.ok(line, 'no line of the log in the trace');
      assert.match(line['span_id'] ?? '', /^[0-9a-f]{16}$/);
      assert.match(line['time'] ?? '', /^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z$/);
      assert.ok(line['level'] && line['msg']);
    });

    test('a client that knows nothing of traces has its calls traced too', async () => {
      const output = await ctr.ok('run', '--rm', image, 'once', 'echo', 'traced');
      assert.equal(output, 'traced\n');
      const spans = await collector.trace('a trace of ctr run', (all) => {
        const root = all.find(({ parentId }) => parentId === '');
        return (
          root?.name === 'containerd.services.tasks.v1.Tasks/Create' &&
          all.some(({ service, name }) => service === 'gantry-shim' && name === 'containerd.task.v3.Task/Create')
        );
      });
      assert.equal(named(spans, 'containerd.services.tasks.v1.Tasks/Create').status, 0);
      // A failure that is the caller's is no fault of the server's.
      await ctr.try('containers', 'info', 'nobody');
      const missing = await eventually('the refused call', () =>
        collector.spans.find(
          ({ name, attributes }) =>
            name === 'containerd.services.containers.v1.Containers/Get' && attributes['rpc.grpc.status_code'] === 5,
        ),
      );
      assert.equal(missing.status, 0);
    });

    test('the plugins are there under their names', async () => {
      const list = await ctr.ok('plugins', 'ls');
      for (const plugin of [
        /io\.containerd\.tracing\.processor\.v1 +otlp .* ok/,
        /io\.containerd\.internal\.v1 +tracing .* ok/,
        /io\.containerd\.ttrpc\.v1 +otelttrpc .* ok/,
        /io\.containerd\.metrics\.v1 +grpc-otel .* ok/,
      ])
        assert.match(list, plugin);
    });
  });
}

test('the environment that is wrong or switches tracing off', { skip }, async () => {
  const temp = makeTempDir('tracing-off');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const ctr = new CtrSession(own!, daemon.address, 'tracing');
  try {
    for (const [variables, status] of [
      [{ OTEL_SDK_DISABLED: 'true' }, 'skip'],
      [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' }, 'error'],
      [{ OTEL_EXPORTER_OTLP_ENDPOINT: '' }, 'skip'],
    ] as const) {
      Object.assign(process.env, {
        OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
        OTEL_EXPORTER_OTLP_PROTOCOL: '',
      });
      Object.assign(process.env, { OTEL_SDK_DISABLED: '' }, variables);
      await daemon.start();
      assert.match(await ctr.ok('plugins', 'ls'), new RegExp(`tracing\\.processor\\.v1 +otlp .* ${status}`));
      await daemon.stop();
    }
  } finally {
    await daemon.stop();
    await temp.remove();
  }
});
