import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { checkConfig } from './check-config.ts';

const plugins = ['io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime'].map((name) =>
  definePlugin({
    type: name.slice(0, name.lastIndexOf('.')),
    id: name.slice(name.lastIndexOf('.') + 1),
    config: schema({
      registry: field.any(),
      pinned_images: field.map(),
      enable_selinux: field.boolean(),
      containerd: field.table({ default_runtime_name: field.string() }),
    }),
    init: () => ({}),
  }),
);

test('unknown, removed, deprecated and wrong settings are named with file and line', async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-check-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const main = path.join(directory, 'config.toml');
  const more = path.join(directory, 'more.toml');
  writeFileSync(
    main,
    `version = 2
imports = ["more.toml"]
rooot = "/x"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "pause:3"
  systemd_cgroup = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    default_runtime_nam = "runc"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc"
    [plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
      endpoint = ["https://mirror.example"]
[plugins."io.containerd.nobody.v1.x"]
`,
  );
  writeFileSync(more, `version = 4\n[debug]\nlevel = 'loud'\n`);
  const found = await checkConfig(main, plugins);
  assert.deepEqual(
    found.map(({ file, line, kind }) => [path.basename(file), line, kind]),
    [
      ['config.toml', 0, 'old'],
      ['config.toml', 3, 'unknown'],
      ['config.toml', 6, 'removed'],
      ['config.toml', 9, 'unknown'],
      ['config.toml', 13, 'deprecated'],
      ['config.toml', 14, 'unknown'],
      ['more.toml', 0, 'invalid'],
    ],
  );
  assert.match(found[3]!.message, /default_runtime_nam is unknown/);
  assert.match(found[4]!.message, /Use `config_path`/);
  assert.match(found[6]!.message, /^table \[debug\]: key level: expected one of/);
});
