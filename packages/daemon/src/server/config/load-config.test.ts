import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { field, schema } from '../../core/plugin/config-schema.ts';
import type { Plugin } from '../../core/plugin/plugin.ts';
import { fullConfig, loadConfig } from './load-config.ts';
import { printToml } from './print-toml.ts';

const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-config-'));
after(() => rmSync(dir, { recursive: true }));

const plugin: Plugin = {
  type: 'io.containerd.test.v1',
  id: 'one',
  config: schema({
    every: field.duration('10s'),
    dir: field.path('/x'),
    list: field.strings(['a']),
    n: field.integer(),
  }),
  init: () => ({}),
};

function write(name: string, text: string): string {
  const file = path.join(dir, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

const load = (file: string) => loadConfig({ path: file, plugins: [plugin] });

test('imports are laid over the importing file: globs, relative, circles, other versions', async () => {
  const main = write(
    'imports/main.toml',
    `version = 3
     imports = ["conf.d/*.toml", "extra.toml"]
     disabled_plugins = ["a.b"]
     oom_score = -5
     [plugins."io.containerd.test.v1.one"]
     every = "1m"
     n = 1
     [timeouts]
     "io.containerd.timeout.shim.load" = "7s"
     [stream_processors.p]
     returns = "x"
     path = "p"`,
  );
  write(
    'imports/conf.d/10.toml',
    'version = 4\ndisabled_plugins = ["a.b", "c.d"]\n[plugins."io.containerd.test.v1.one"]\nn = 2\nlist = ["z"]',
  );
  write(
    'imports/conf.d/20.toml',
    'version = 4\nimports = ["../main.toml"]\n[plugins."io.containerd.test.v1.one"]\nn = 3',
  );
  write(
    'imports/extra.toml',
    'version = 2\noom_score = 0\n[grpc]\naddress = "/from-extra.sock"\n[stream_processors.p]\nreturns = "y"',
  );
  const config = await load(main);
  assert.deepEqual(
    config.files.map((file) => path.basename(file)),
    ['main.toml', '10.toml', '20.toml', 'extra.toml'],
  );
  assert.deepEqual(config.server.disabled_plugins, ['a.b', 'c.d']);
  assert.equal(config.server.oom_score, -5);
  assert.deepEqual(config.pluginConfig(plugin), { every: 60_000, dir: '/x', list: ['z'], n: 3 });
  assert.equal(config.server.timeouts['io.containerd.timeout.shim.load'], 7000);
  assert.equal(config.server.timeouts['io.containerd.timeout.shim.cleanup'], 5000);
  assert.equal(config.server.stream_processors['p']?.returns, 'y');
  assert.equal(config.server.stream_processors['p']?.path, '');
});

test('unknown keys are warnings that name file, table and key', async () => {
  const file = write(
    'unknown.toml',
    'version = 4\nimports = []\nwhat = 1\n[plugins."io.containerd.test.v1.one"]\nn = 1\nnope = 2\n[plugins."io.x.y"]\na = 1',
  );
  const { warnings } = await load(file);
  assert.deepEqual(warnings, [
    `${file}: top level: key what is unknown and ignored`,
    `${file}: table [plugins."io.containerd.test.v1.one"]: key nope is unknown and ignored`,
    `${file}: table [plugins]: key "io.x.y" names a plugin that this daemon does not have`,
  ]);
});

test('wrong values are errors that name the file they are in, also an imported one', async () => {
  const bad = write('bad/imported.toml', 'version = 4\n[plugins."io.containerd.test.v1.one"]\nevery = "soon"');
  const main = write('bad/main.toml', 'version = 4\nimports = ["imported.toml"]');
  await assert.rejects(load(main), (error: Error) => {
    assert.equal(
      error.message,
      `${bad}: table [plugins."io.containerd.test.v1.one"]: key every: expected a duration such as "1h30m" or "0.5s", got the string "soon"`,
    );
    return true;
  });
  const cases: [string, RegExp][] = [
    ['root = "relative"', /top level: key root: expected an absolute path, got the string "relative"/],
    ['oom_score = "x"', /top level: key oom_score: expected an integer/],
    ['[debug]\nlevel = "loud"', /table \[debug\]: key level: expected one of .*"debug"/],
    ['[timeouts]\nx = "never"', /table \[timeouts\]: key x: expected a duration/],
    ['imports = ["missing.toml"]', /key imports: cannot read .*missing\.toml/],
    ['plugins = 3', /key plugins: expected a table/],
    ['a = = 1', /line 2: /],
  ];
  for (const [text, message] of cases)
    await assert.rejects(load(write('bad/case.toml', `version = 4\n${text}`)), message);
});

test('a missing file is an error only if it was asked for', async () => {
  const file = path.join(dir, 'none.toml');
  await assert.rejects(load(file), /failed to load configuration .*none\.toml: no such file/);
  const config = await loadConfig({ path: file, optional: true, plugins: [plugin] });
  assert.equal(config.server.root, '/var/lib/gantry');
  assert.equal(config.server.timeouts['io.containerd.timeout.cri.defercleanup'], 60_000);
});

test('the full configuration is valid TOML that reads back as itself', async () => {
  const text = printToml(fullConfig({ oom_score: 3, root: "/it's" }, [plugin]));
  assert.match(text, /^version = 4\nroot = "\/it's"\nstate = '\/run\/gantry'\n/);
  assert.match(text, /\n\[plugins\]\n {2}\[plugins\.'io\.containerd\.test\.v1\.one'\]\n {4}every = '10s'\n/);
  const file = write('full.toml', text.replace(/imports = .*/, 'imports = []'));
  const config = await load(file);
  assert.deepEqual(config.warnings, []);
  assert.equal(config.server.oom_score, 3);
  assert.equal(printToml(fullConfig(config.raw, [plugin])), printToml(config.raw));
});
