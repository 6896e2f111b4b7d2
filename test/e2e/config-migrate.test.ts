// `gantryd config migrate` held against containerd's own: what containerd 2.3.4 makes of a file that we have migrated is what it makes of
// the old one.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { parse } from 'smol-toml';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { bin } from '../lib/daemon.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const one = `# of version 1: it does not say
root = "/var/lib/containerd"
oom_score = -999
disabled_plugins = ["cri", "aufs"] # short names

[grpc]
  address = "/run/containerd/containerd.sock"
[ttrpc]
  address = "/run/containerd/t.sock"
[debug]
  address = "/run/containerd/debug.sock"
  level = "debug"
[metrics]
  address = "127.0.0.1:1338"
  grpc_histogram = true

[plugins]
  [plugins.cri]
    stream_server_port = "10010"
    sandbox_image = "k8s.gcr.io/pause:3.1"
    [plugins.cri.containerd]
      snapshotter = "overlayfs"
      [plugins.cri.containerd.runtimes.kata]
        runtime_type = "io.containerd.kata.v2"
    [plugins.cri.cni]
      bin_dir = "/usr/lib/cni"
    [plugins.cri.registry.mirrors."docker.io"]
      endpoint = ["https://mirror.example.com"]
  [plugins.scheduler]
    pause_threshold = 0.03
  [plugins.opt]
    path = "/opt/containerd"
`;

const three = `version = 3
[grpc]
  address = '/run/containerd/containerd.sock'
  tcp_address = '127.0.0.1:9'
[ttrpc]
  address = '/run/containerd/t.sock'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '/etc/containerd/certs.d'
[plugins.'io.containerd.snapshotter.v1.overlayfs']
  upperdir_label = true
[timeouts]
  'io.containerd.timeout.shim.load' = '6s'
`;

describe('configurations of containerd', { skip: TestContainerd.missing(containerd2) }, () => {
  const temp = makeTempDir('config');
  after(() => temp.remove());
  const file = (name: string, text: string): string => {
    const full = path.join(temp.path, name);
    writeFileSync(full, text);
    return full;
  };
  type Table = Record<string, unknown> & { plugins: Record<string, Record<string, unknown>> };
  async function understood(config: string): Promise<Table> {
    const { stdout } = await run(containerd2, ['--config', config, 'config', 'migrate']);
    const table = parse(stdout) as Table;
    // It keeps the table of a plugin that it has no more.
    delete table.plugins['io.containerd.runtime.v1.linux'];
    // Where nothing is said it is derived from the main address, by containerd while it migrates and by us when we start.
    const ttrpc = table.plugins['io.containerd.server.v1.ttrpc'];
    if (ttrpc?.['address'] === '/run/containerd/containerd.sock.ttrpc') ttrpc['address'] = '';
    return table;
  }
  const sources: [string, () => Promise<string>][] = [
    ['version 1', async () => one],
    [
      'version 2, containerd 1.6’s default',
      async () => (await run('/usr/bin/containerd', ['config', 'default'])).stdout,
    ],
    ['version 3', async () => three],
    ['version 4, containerd 2.3.4’s default', async () => (await run(containerd2, ['config', 'default'])).stdout],
  ];
  for (const [name, source] of sources) {
    const skip = name.includes('1.6') && TestContainerd.missing();
    test(name, { skip }, async () => {
      const old = file('old.toml', await source());
      const { stdout } = await run(bin.gantryd, ['--config', old, 'config', 'migrate']);
      assert.match(stdout, /^version = 4$/m);
      assert.deepEqual(await understood(file('new.toml', stdout)), await understood(old));
    });
  }
});
