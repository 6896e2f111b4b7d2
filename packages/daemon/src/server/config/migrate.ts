// Brings configuration files of containerd's versions 1, 2 and 3 to version 4, table by table, in memory.
//
// 1 named plugins by their bare id; 2 by `type.id`; 3 split the CRI plugin in images and runtime; 4 made the servers
// (`[grpc]`, `[ttrpc]`, `[debug]` and `[metrics]` addresses) plugins.
import { invalidArgument } from '@gantry/api';
import { isTable } from '../../core/plugin/config-check.ts';
import { newestVersion } from './server-config.ts';

type Table = Record<string, unknown>;

/** Version 1's short ids. Others are left as they are and end up as unknown plugins, with a warning. */
const fullIds: Record<string, string> = {
  cri: 'io.containerd.grpc.v1.cri',
  opt: 'io.containerd.internal.v1.opt',
  restart: 'io.containerd.internal.v1.restart',
  tracing: 'io.containerd.internal.v1.tracing',
  cgroups: 'io.containerd.monitor.v1.cgroups',
  scheduler: 'io.containerd.gc.v1.scheduler',
  bolt: 'io.containerd.metadata.v1.bolt',
  'diff-service': 'io.containerd.service.v1.diff-service',
  'tasks-service': 'io.containerd.service.v1.tasks-service',
  task: 'io.containerd.runtime.v2.task',
  linux: 'io.containerd.runtime.v1.linux',
  content: 'io.containerd.content.v1.content',
  exchange: 'io.containerd.event.v1.exchange',
  walking: 'io.containerd.differ.v1.walking',
  ...Object.fromEntries(
    ['aufs', 'blockfile', 'btrfs', 'devmapper', 'native', 'overlayfs', 'zfs'].map((id) => [
      id,
      `io.containerd.snapshotter.v1.${id}`,
    ]),
  ),
  ...Object.fromEntries(
    [
      ...['containers', 'diff', 'events', 'healthcheck', 'images', 'introspection', 'leases', 'namespaces'],
      ...['snapshots', 'tasks', 'version'],
    ].map((id) => [id, `io.containerd.grpc.v1.${id}`]),
  ),
};

/** Plugins that version 3 knows under another name. */
const renamedInThree: Record<string, string> = {
  'io.containerd.monitor.v1.cgroups': 'io.containerd.monitor.task.v1.cgroups',
  'io.containerd.internal.v1.restart': 'io.containerd.monitor.container.v1.restart',
};

/** Moves the named keys from one table to another; what is not there is skipped. `to` keeps what it has. */
function move(from: Table, to: Table, keys: Record<string, string> | readonly string[]): void {
  const pairs = Array.isArray(keys) ? keys.map((key: string) => [key, key] as const) : Object.entries(keys);
  for (const [key, name] of pairs as [string, string][]) {
    if (!(key in from)) continue;
    if (!(name in to)) to[name] = from[key];
    delete from[key];
  }
}

/** The sub-table under a key, or an empty one if there is none. A value that is no table is left for the check to find. */
function sub(table: Table, key: string): Table {
  const value = table[key];
  return isTable(value) ? value : {};
}

/** Puts a table under a key if it holds anything, merged over what is there. */
function put(table: Table, key: string, value: Table): void {
  if (Object.keys(value).length > 0) table[key] = { ...sub(table, key), ...value };
}

function renameIn(list: unknown, names: Record<string, string>): unknown {
  return Array.isArray(list)
    ? list.map((item: unknown) => (typeof item === 'string' ? (names[item] ?? item) : item))
    : list;
}

function renamePlugins(config: Table, names: Record<string, string>): void {
  if (isTable(config['plugins'])) {
    config['plugins'] = Object.fromEntries(
      Object.entries(config['plugins']).map(([name, table]) => [names[name] ?? name, table]),
    );
  }
  for (const key of ['disabled_plugins', 'required_plugins']) {
    if (key in config) config[key] = renameIn(config[key], names);
  }
}

function fromOne(config: Table): void {
  renamePlugins(config, fullIds);
}

/** The CRI plugin of version 2 became three tables. */
function splitCri(plugins: Table): void {
  const name = 'io.containerd.grpc.v1.cri';
  if (!isTable(plugins[name])) return;
  const cri: Table = { ...plugins[name] };
  const images: Table = {};
  const runtime: Table = {};
  const server: Table = {};
  move(cri, server, [
    'disable_tcp_service',
    'stream_server_address',
    'stream_server_port',
    'stream_idle_timeout',
    'enable_tls_streaming',
    'x509_key_pair_streaming',
    'tcp_service_address',
  ]);
  move(cri, images, [
    'registry',
    'image_decryption',
    'max_concurrent_downloads',
    'image_pull_progress_timeout',
    'image_pull_with_sync_fs',
    'stats_collect_period',
  ]);
  const containerd: Table = { ...sub(cri, 'containerd') };
  move(containerd, images, ['snapshotter', 'disable_snapshot_annotations', 'discard_unpacked_layers']);
  if ('sandbox_image' in cri) images['pinned_images'] = { sandbox: cri['sandbox_image'] };
  const runtimes: Table = {};
  const platforms: Table = {};
  for (const [id, value] of Object.entries(sub(containerd, 'runtimes'))) {
    if (!isTable(value)) {
      runtimes[id] = value;
      continue;
    }
    const { sandbox_mode, runtime_engine: _engine, runtime_root: _root, ...rest } = value;
    runtimes[id] = sandbox_mode === undefined ? rest : { sandboxer: sandbox_mode, ...rest };
    if (typeof rest['snapshotter'] === 'string' && rest['snapshotter'] !== '') {
      platforms[id] = { snapshotter: rest['snapshotter'] };
    }
  }
  if (Object.keys(platforms).length > 0) images['runtime_platforms'] = platforms;
  if ('runtimes' in containerd) containerd['runtimes'] = runtimes;
  // These were deprecated in version 2 already and mean nothing any more.
  for (const key of ['default_runtime', 'untrusted_workload_runtime', 'no_pivot']) delete containerd[key];
  for (const key of ['sandbox_image', 'systemd_cgroup', 'containerd']) delete cri[key];
  const { bin_dir, ...cni } = sub(cri, 'cni');
  if (bin_dir !== undefined) cri['cni'] = 'bin_dirs' in cni ? cni : { bin_dirs: [bin_dir], ...cni };
  Object.assign(runtime, cri);
  if (Object.keys(containerd).length > 0) runtime['containerd'] = containerd;

  delete plugins[name];
  put(plugins, name, server);
  put(plugins, 'io.containerd.cri.v1.images', images);
  put(plugins, 'io.containerd.cri.v1.runtime', runtime);
}

function fromTwo(config: Table): void {
  renamePlugins(config, renamedInThree);
  if (!isTable(config['plugins'])) return;
  const plugins: Table = { ...config['plugins'] };
  config['plugins'] = plugins;
  splitCri(plugins);
  const task = 'io.containerd.runtime.v2.task';
  if (isTable(plugins[task])) {
    const rest: Table = { ...plugins[task] };
    const manager: Table = {};
    move(rest, manager, ['env']);
    if (rest['sched_core'] === true) manager['env'] = ['SCHED_CORE=1'];
    delete rest['sched_core'];
    delete plugins[task];
    put(plugins, task, rest);
    put(plugins, 'io.containerd.shim.v1.manager', manager);
  }
  // The runtime of containerd 1.0's own shim API is gone.
  delete plugins['io.containerd.runtime.v1.linux'];
}

/** The server tables of version 3 and the plugins of version 4 that took their keys. */
function fromThree(config: Table): void {
  const plugins: Table = isTable(config['plugins']) ? { ...config['plugins'] } : {};
  const grpc: Table = { ...sub(config, 'grpc') };
  const tcp: Table = {};
  move(grpc, tcp, {
    tcp_address: 'address',
    tcp_tls_ca: 'tls_ca',
    tcp_tls_cert: 'tls_cert',
    tcp_tls_key: 'tls_key',
    tcp_tls_common_name: 'tls_common_name',
  });
  if (typeof tcp['address'] === 'string' && tcp['address'] !== '') {
    for (const key of ['max_recv_message_size', 'max_send_message_size']) if (key in grpc) tcp[key] = grpc[key];
  }
  const debug: Table = { ...sub(config, 'debug') };
  const debugServer: Table = {};
  move(debug, debugServer, ['address', 'uid', 'gid']);
  const metrics: Table = { ...sub(config, 'metrics') };
  const counters: Table = {};
  move(metrics, counters, ['grpc_histogram']);

  put(plugins, 'io.containerd.server.v1.grpc', grpc);
  put(plugins, 'io.containerd.server.v1.grpc-tcp', tcp);
  put(plugins, 'io.containerd.server.v1.ttrpc', { ...sub(config, 'ttrpc') });
  put(plugins, 'io.containerd.server.v1.debug', debugServer);
  put(plugins, 'io.containerd.server.v1.metrics', metrics);
  put(plugins, 'io.containerd.metrics.v1.grpc-prometheus', counters);
  for (const key of ['grpc', 'ttrpc', 'metrics']) if (isTable(config[key])) delete config[key];
  if (isTable(config['debug'])) {
    delete config['debug'];
    put(config, 'debug', debug);
  }
  if (Object.keys(plugins).length > 0) config['plugins'] = plugins;
}

/**
 * The same configuration in the newest version. The given object is not changed. A file without a version is of version 1.
 * @throws StatusError InvalidArgument for a version that is no integer from 1 to 4.
 */
export function migrateConfig(raw: Record<string, unknown>, file: string): Record<string, unknown> {
  const given = raw['version'] ?? 1;
  const version = typeof given === 'bigint' ? Number(given) : given;
  if (typeof version !== 'number' || !Number.isInteger(version) || version < 1 || version > newestVersion) {
    throw invalidArgument(
      `${file === '' ? '' : `${file}: `}top level: key version: expected an integer from 1 to ${newestVersion}, got ${String(given)}`,
    );
  }
  const config: Table = { ...raw };
  const steps = [fromOne, fromTwo, fromThree];
  for (const step of steps.slice(version - 1)) step(config);
  // Go plugins that were loaded from a directory: containerd 2 dropped them.
  if (version < newestVersion) delete config['plugin_dir'];
  return { version: newestVersion, ...Object.fromEntries(Object.entries(config).filter(([key]) => key !== 'version')) };
}
