import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { migrateConfig } from './migrate.ts';
import { printToml } from './print-toml.ts';

/** Without the null prototypes that the TOML parser gives its tables. */
const plain = (value: unknown) => JSON.parse(JSON.stringify(value)) as Record<string, unknown>;
const migrate = (toml: string) => plain(migrateConfig(parse(toml), 'x.toml'));

test('version 1: short ids, no version', () => {
  assert.deepEqual(
    migrate(`
      disabled_plugins = ["cri", "zfs"]
      required_plugins = ["opt"]
      plugin_dir = "/x"
      [plugins.opt]
      path = "/o"
      [plugins.restart]
      interval = "5s"
      [plugins.linux]
      shim = "x"
    `),
    {
      version: 4,
      disabled_plugins: ['io.containerd.grpc.v1.cri', 'io.containerd.snapshotter.v1.zfs'],
      required_plugins: ['io.containerd.internal.v1.opt'],
      plugins: {
        'io.containerd.internal.v1.opt': { path: '/o' },
        'io.containerd.monitor.container.v1.restart': { interval: '5s' },
      },
    },
  );
});

test('version 2: the CRI plugin becomes three, runtimes and their snapshotters among them', () => {
  const migrated = migrate(`
    version = 2
    [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause:1"
    stream_server_port = "1"
    enable_selinux = true
    max_concurrent_downloads = 5
    systemd_cgroup = false
    [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    no_pivot = false
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
    runtime_type = "io.containerd.kata.v2"
    snapshotter = "devmapper"
    sandbox_mode = "shim"
    runtime_root = ""
    [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/certs"
    [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "/cni"
    [plugins."io.containerd.runtime.v2.task"]
    sched_core = true
    platforms = ["linux/amd64"]
  `);
  assert.deepEqual(migrated, {
    version: 4,
    plugins: {
      'io.containerd.grpc.v1.cri': { stream_server_port: '1' },
      'io.containerd.cri.v1.images': {
        snapshotter: 'native',
        max_concurrent_downloads: 5,
        registry: { config_path: '/certs' },
        pinned_images: { sandbox: 'pause:1' },
        runtime_platforms: { kata: { snapshotter: 'devmapper' } },
      },
      'io.containerd.cri.v1.runtime': {
        enable_selinux: true,
        cni: { conf_dir: '/cni' },
        containerd: {
          default_runtime_name: 'runc',
          runtimes: {
            kata: { runtime_type: 'io.containerd.kata.v2', snapshotter: 'devmapper', sandboxer: 'shim' },
          },
        },
      },
      'io.containerd.runtime.v2.task': { platforms: ['linux/amd64'] },
      'io.containerd.shim.v1.manager': { env: ['SCHED_CORE=1'] },
    },
  });
});

test('version 3: server tables become plugins', () => {
  const migrated = migrate(`
    version = 3
    [grpc]
    address = "/g.sock"
    uid = 1
    max_recv_message_size = 7
    tcp_address = "127.0.0.1:1"
    tcp_tls_common_name = "me"
    [ttrpc]
    address = "/t.sock"
    [debug]
    address = "/d.sock"
    level = "debug"
    [metrics]
    address = "127.0.0.1:2"
    grpc_histogram = true
  `);
  assert.deepEqual(migrated, {
    version: 4,
    debug: { level: 'debug' },
    plugins: {
      'io.containerd.server.v1.grpc': { address: '/g.sock', uid: 1, max_recv_message_size: 7 },
      'io.containerd.server.v1.grpc-tcp': { address: '127.0.0.1:1', tls_common_name: 'me', max_recv_message_size: 7 },
      'io.containerd.server.v1.ttrpc': { address: '/t.sock' },
      'io.containerd.server.v1.debug': { address: '/d.sock' },
      'io.containerd.server.v1.metrics': { address: '127.0.0.1:2' },
      'io.containerd.metrics.v1.grpc-prometheus': { grpc_histogram: true },
    },
  });
  assert.deepEqual(plain(migrateConfig(parse(printToml(migrated)), '')), migrated);
});

test('the given object stays as it was, and a version of the future is refused', () => {
  const given = plain(parse('version = 3\n[grpc]\naddress = "/g"\n[plugins.x]\na = 1'));
  const copy = structuredClone(given);
  migrateConfig(given, '');
  assert.deepEqual(given, copy);
  for (const version of ['9', '0', '"2"', '2.5']) {
    assert.throws(
      () => migrate(`version = ${version}`),
      /x\.toml: top level: key version: expected an integer from 1 to 4/,
    );
  }
});
