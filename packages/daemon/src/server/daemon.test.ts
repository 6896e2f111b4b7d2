import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Health } from '@gantry/api/gen/grpc/health/v1/health_pb.js';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { createClient, grpcTransport } from '@gantry/rpc';
import { createLogger } from '../core/log/log-writer.ts';
import { definePlugin, type Plugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import { createDaemon, type DaemonOptions } from './daemon.ts';
import { serverPlugins } from './plugins/server-plugins.ts';

const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-daemon-'));
after(() => rmSync(dir, { recursive: true }));

/** A plugin of an embedder's own, with a configuration and a service. */
const greeter = definePlugin({
  type: PluginTypes.Grpc,
  id: 'greeter',
  init: () => ({ register: (grpc) => grpc.add(Version, { version: () => ({ version: 'mine' }) }) }),
});
const healthy = definePlugin({
  type: PluginTypes.Grpc,
  id: 'healthy',
  init: () => ({ register: (grpc) => grpc.add(Health, { check: () => ({ status: 1 }) }) }),
});

let count = 0;
function options(more: Partial<DaemonOptions> & { lines?: string[]; plugins?: Plugin[] } = {}): DaemonOptions {
  const at = path.join(dir, String(count++));
  const { lines, plugins, config, ...rest } = more;
  return {
    root: path.join(at, 'root'),
    state: path.join(at, 'state'),
    address: path.join(at, 'state/g.sock'),
    log: createLogger({ write: (line) => void lines?.push(line) }),
    config: {
      ...config,
      plugins: { 'io.containerd.internal.v1.opt': { path: path.join(at, 'opt') }, ...(config?.['plugins'] as object) },
    },
    plugins: [...serverPlugins, ...(plugins ?? [greeter])],
    ...rest,
  };
}

test('a program embeds a daemon of its own plugins, calls it, and closes it', async () => {
  const daemon = await createDaemon(options({ plugins: [greeter, healthy] }));
  await daemon.start();
  const transport = grpcTransport(daemon.address);
  try {
    assert.equal((await createClient(Version, transport).version({})).version, 'mine');
    assert.equal((await createClient(Health, transport).check({})).status, 1);
    assert.equal(statSync(daemon.root).mode & 0o777, 0o700);
    assert.equal(statSync(daemon.state).mode & 0o777, 0o711);
    assert.equal(statSync(daemon.address).mode & 0o007, 0);
    assert.ok(existsSync(daemon.ttrpcAddress));
    assert.equal(daemon.ttrpcAddress, `${daemon.address}.ttrpc`);
  } finally {
    await transport.close();
    await daemon.close();
  }
  assert.ok(!existsSync(daemon.address));
  assert.ok(!existsSync(daemon.ttrpcAddress));
});

test('one daemon to a root: the second is told who has it, and may start when the first is gone', async () => {
  const first = await createDaemon(options());
  await first.start();
  const again = () => createDaemon({ ...options(), root: first.root });
  await assert.rejects(
    (await again()).start(),
    new RegExp(`another daemon uses the root directory .* \\(process ${process.pid}\\)`),
  );
  await first.close();
  const third = await again();
  await third.start();
  await third.close();
});

test('a failing plugin leaves the daemon running; a failing required one does not', async () => {
  const broken: Plugin = {
    type: PluginTypes.Grpc,
    id: 'broken',
    init: () => {
      throw new Error('no disk');
    },
  };
  const lines: string[] = [];
  const daemon = await createDaemon(options({ plugins: [greeter, broken], lines }));
  await daemon.start();
  await daemon.close();
  assert.equal(daemon.statuses().find((status) => status.id === 'broken')?.error?.message, 'no disk');
  assert.ok(lines.some((line) => line.includes('level=warning msg="failed to load plugin" error="no disk"')));

  const strict = await createDaemon(
    options({ plugins: [greeter, broken], config: { required_plugins: ['io.containerd.grpc.v1.broken'] } }),
  );
  await assert.rejects(strict.start(), /load required plugin io\.containerd\.grpc\.v1\.broken: no disk/);
});

test('what an earlier daemon left in the directory for temporary files is gone', async () => {
  const given = options();
  const left = path.join(given.root!, 'tmpmounts/left/inside');
  mkdirSync(path.dirname(left), { recursive: true });
  writeFileSync(left, 'x');
  const daemon = await createDaemon(given);
  await daemon.start();
  await daemon.close();
  assert.ok(!existsSync(path.dirname(left)));
});

test('disabled plugins leave the list; a proxy nobody can make is shown as failed', async () => {
  const daemon = await createDaemon(
    options({
      config: {
        disabled_plugins: ['io.containerd.grpc.v1.greeter'],
        proxy_plugins: { fuse: { type: 'snapshot', address: '/nowhere.sock' } },
      },
    }),
  );
  await daemon.start();
  await daemon.close();
  const statuses = daemon.statuses();
  assert.ok(!statuses.some((status) => status.id === 'greeter'));
  const proxy = statuses.find((status) => status.id === 'fuse');
  assert.equal(proxy?.type, 'io.containerd.snapshotter.v1');
  assert.match(proxy?.error?.message ?? '', /no proxy for the type "snapshot"/);
});

test('metrics count calls and show the process', async () => {
  const daemon = await createDaemon(
    options({ config: { plugins: { 'io.containerd.server.v1.metrics': { address: '127.0.0.1:0' } } } }),
  );
  await daemon.start();
  const transport = grpcTransport(daemon.address);
  try {
    await createClient(Version, transport).version({});
    const port = daemon.statuses().find((status) => status.id === 'metrics')?.meta.exports['port'];
    const answer = await fetch(`http://127.0.0.1:${port}/v1/metrics`);
    const text = await answer.text();
    const service = 'grpc_service="containerd.services.version.v1.Version",grpc_method="Version"';
    assert.ok(text.includes(`grpc_server_handled_total{grpc_type="unary",${service},grpc_code="OK"} 1\n`), text);
    assert.match(text, /^process_resident_memory_bytes \d+$/m);
    assert.equal((await fetch(`http://127.0.0.1:${port}/other`)).status, 404);
  } finally {
    await transport.close();
    await daemon.close();
  }
});

test('deprecation warnings survive a restart', async () => {
  const given = options();
  const run = async (
    use: (warnings: {
      emit(id: string, message: string): Promise<void>;
      warnings(): { id: string }[];
    }) => Promise<void>,
  ) => {
    const daemon = await createDaemon(given);
    await daemon.start();
    try {
      await use(daemon.get(PluginTypes.Warning, 'deprecations') as never);
    } finally {
      await daemon.close();
    }
  };
  await run((warnings) => warnings.emit('io.containerd.deprecation/x', 'use y'));
  await run(async (warnings) => {
    assert.deepEqual(
      warnings.warnings().map(({ id }) => id),
      ['io.containerd.deprecation/x'],
    );
  });
  assert.match(
    readFileSync(path.join(given.root!, 'io.containerd.warning.v1.deprecations/warnings.json'), 'utf8'),
    /use y/,
  );
});

test('the same services on TCP, with a warning that there is no TLS', async () => {
  const lines: string[] = [];
  const daemon = await createDaemon(
    options({ lines, config: { plugins: { 'io.containerd.server.v1.grpc-tcp': { address: '127.0.0.1:0' } } } }),
  );
  await daemon.start();
  const port = daemon.statuses().find((status) => status.id === 'grpc-tcp')?.meta.exports['port'];
  const transport = grpcTransport(`127.0.0.1:${port}`);
  try {
    assert.equal((await createClient(Version, transport).version({})).version, 'mine');
    assert.ok(lines.some((line) => line.includes('level=warning') && line.includes('without TLS')));
  } finally {
    await transport.close();
    await daemon.close();
  }
});

test('the dump of state tells of plugins, servers and the calls that run', async () => {
  const lines: string[] = [];
  let answer!: () => void;
  const waiting = definePlugin({
    type: PluginTypes.Grpc,
    id: 'waiting',
    init: () => ({
      register: (grpc) =>
        grpc.add(Version, {
          version: async () => {
            await new Promise<void>((resolve) => {
              answer = resolve;
            });
            return {};
          },
        }),
    }),
  });
  const daemon = await createDaemon(options({ lines, plugins: [waiting] }));
  await daemon.start();
  const transport = grpcTransport(daemon.address);
  try {
    const call = createClient(Version, transport).version({});
    while (answer === undefined) await new Promise((resolve) => setImmediate(resolve));
    daemon.dump();
    answer();
    await call;
    const dump = lines.join('');
    assert.match(dump, /msg="plugin" id=io\.containerd\.grpc\.v1\.waiting status=ok/);
    assert.match(dump, /msg="server" .*calls=.*containerd\.services\.version\.v1\.Version\/Version/);
    assert.match(dump, /msg="=== BEGIN state dump ===" descriptors=\d+ .*memory=/);
  } finally {
    await transport.close();
    await daemon.close();
  }
});

test('deprecated settings are warned of, under containerd’s ids', async () => {
  const registry = { registry: { mirrors: { 'docker.io': { endpoint: ['https://mirror.example'] } } } };
  const daemon = await createDaemon(options({ config: { plugins: { 'io.containerd.cri.v1.images': registry } } }));
  await daemon.start();
  try {
    const [warning] = daemon.get(PluginTypes.Warning, 'deprecations').warnings();
    assert.equal(warning?.id, 'io.containerd.deprecation/cri-registry-mirrors');
    assert.match(warning?.message ?? '', /Use `config_path`/);
  } finally {
    await daemon.close();
  }
});
