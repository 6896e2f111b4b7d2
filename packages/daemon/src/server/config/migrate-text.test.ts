import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { migrateConfig } from './migrate.ts';
import { migrateText } from './migrate-text.ts';
import { parseTomlDocument } from './toml-document.ts';

/** The migrated text; it must say what the migrated configuration says. */
function migrate(source: string) {
  const raw = parse(source) as Record<string, unknown>;
  const result = migrateText(source, raw, 'x.toml');
  const plain = (value: unknown) => JSON.parse(JSON.stringify(value)) as unknown;
  assert.deepEqual(plain(parse(result.text)), plain(migrateConfig(raw, 'x.toml')));
  return result;
}

test('statements with their comments, over several lines and in every kind of string', () => {
  const { statements, after } = parseTomlDocument(`# top
a.'b.c' = 'x # no comment' # a comment
list = [ # first
  "]", # in it
  '''
]''', """\\"""" ]

[ x . "y" ]  # table
k = { a = "}" }
[[z]]
# end`);
  assert.deepEqual(
    statements.map(({ kind, path, line, text, comment }) => [kind, path.join('/'), line, text, comment]),
    [
      ['value', 'a/b.c', 2, "'x # no comment'", '# a comment'],
      ['value', 'list', 3, '[ # first\n  "]", # in it\n  \'\'\'\n]\'\'\', """\\"""" ]', ''],
      ['table', 'x/y', 8, '', '# table'],
      ['value', 'x/y/k', 9, '{ a = "}" }', ''],
      ['element', 'z', 10, '', ''],
    ],
  );
  assert.deepEqual(statements[0]?.before, ['# top']);
  assert.deepEqual(after, ['# end']);
  assert.throws(() => parseTomlDocument('a = \nb = 1', 'c.toml'), /c\.toml: line 1/);
});

test('version 2 to the newest: tables are renamed and split, comments go along', () => {
  const { text, settings } = migrate(`# Ours
version = 2 # old
root = "/data"   # a big disk
disabled_plugins = ["io.containerd.internal.v1.restart"]

# The socket
[grpc]
  # where clients come
  address = "/run/x.sock"
  tcp_address = "127.0.0.1:9"

[plugins]
  [plugins."io.containerd.grpc.v1.cri"] # Kubernetes
    sandbox_image = "pause:3"
    # off here
    enable_selinux = false
    systemd_cgroup = true
    [plugins."io.containerd.grpc.v1.cri".containerd]
      snapshotter = "overlayfs"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
        # fast
        runtime_type = "io.containerd.kata.v2"
        snapshotter = "devmapper"
  [plugins."io.containerd.internal.v1.tracing"]

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64" # only
# the end
`);
  assert.equal(
    text,
    `# Ours
version = 4 # old
root = "/data" # a big disk
disabled_plugins = ['io.containerd.monitor.container.v1.restart']

# The socket
[plugins."io.containerd.server.v1.grpc"]
  # where clients come
  address = "/run/x.sock"

[plugins."io.containerd.server.v1.grpc-tcp"]
  address = "127.0.0.1:9"
  [plugins."io.containerd.cri.v1.images".pinned_images] # Kubernetes
    sandbox = "pause:3"

  [plugins."io.containerd.cri.v1.runtime"]
    # off here
    enable_selinux = false
    [plugins."io.containerd.cri.v1.images"]
      snapshotter = "overlayfs"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]
        # fast
        runtime_type = "io.containerd.kata.v2"
        snapshotter = "devmapper"

      [plugins."io.containerd.cri.v1.images".runtime_platforms.kata]
        snapshotter = "devmapper"
  [plugins."io.containerd.internal.v1.tracing"]

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64" # only
# the end
`,
  );
  assert.deepEqual(
    settings.filter(({ to }) => to.length === 0),
    [{ path: ['plugins', 'io.containerd.grpc.v1.cri', 'systemd_cgroup'], line: 17, to: [] }],
  );
});

test('a file of the newest version stays as it is', () => {
  const source = `version = 4\n# note\noom_score = -5\n\n[debug]\n  level = 'info' # loud\n`;
  assert.equal(migrate(source).text, source);
});

test('a value that became a list is written as one', () => {
  const { text, settings } = migrate(
    `version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\n  bin_dir = '/usr/lib/cni' # Debian's\n`,
  );
  assert.equal(
    text,
    `version = 4\n[plugins."io.containerd.cri.v1.runtime".cni]\n  bin_dirs = ['/usr/lib/cni'] # Debian's\n`,
  );
  assert.deepEqual(settings[0]!.to, [['plugins', 'io.containerd.cri.v1.runtime', 'cni', 'bin_dirs']]);
});
