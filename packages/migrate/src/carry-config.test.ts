import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { carriedText, carryConfig } from './carry-config.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-carry-'));
after(() => rmSync(folder, { recursive: true }));

const source = `version = 2
root = "/srv/containerd" # a disk of its own
imports = [
  "/etc/containerd/conf.d/*.toml",
]
oom_score = -999
[grpc]
  address = "/run/containerd/containerd.sock"
  uid = 7
[plugins."io.containerd.snapshotter.v1.overlayfs"]
  root_path = "/srv/snapshots"
  upperdir_label = true # kept
`;

test('what names places of containerd’s own becomes a comment, all else stays', () => {
  assert.equal(
    carriedText(source, 'config.toml'),
    `version = 4
# containerd's: root = "/srv/containerd" # a disk of its own
# containerd's: imports = [
# containerd's: "/etc/containerd/conf.d/*.toml",
# containerd's: ]
oom_score = -999
[plugins."io.containerd.server.v1.grpc"]
# containerd's: address = "/run/containerd/containerd.sock"
  uid = 7
[plugins."io.containerd.snapshotter.v1.overlayfs"]
# containerd's: root_path = "/srv/snapshots"
  upperdir_label = true # kept
`,
  );
});

test('a configuration that is there is left alone', () => {
  const from = path.join(folder, 'containerd.toml');
  const to = path.join(folder, 'gantry/config.toml');
  writeFileSync(from, source);
  assert.equal(carryConfig(undefined, to), 'none');
  assert.equal(carryConfig(from, to), 'written');
  writeFileSync(to, 'version = 4\n');
  assert.equal(carryConfig(from, to), 'kept');
  assert.equal(readFileSync(to, 'utf8'), 'version = 4\n');
});
