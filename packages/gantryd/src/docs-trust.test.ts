import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { checkConfig, parseToml } from '@gantry/daemon';
import { readRules } from '@gantry/daemon/plugins/verify-policy/policy.ts';
import { parseHostsFile } from '@gantry/registry/hosts-files.ts';
import { builtinPlugins } from './plugins.ts';

const page = readFileSync(path.resolve(import.meta.dirname, '../../../docs/trust.md'), 'utf8');
const blocks = (kind: string): string[] =>
  [...page.matchAll(/^```(\w+)\n(.*?)^```/gms)].filter((match) => match[1] === kind).map((match) => match[2]!);

test('the configuration in docs/trust.md is one that the daemon knows', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'gantry-docs-'));
  try {
    const file = path.join(dir, 'config.toml');
    const tables = blocks('toml').filter((text) => text.includes('[plugins.'));
    assert.equal(tables.length, 4);
    writeFileSync(file, `version = 4\nimports = []\n${tables.join('\n')}`);
    assert.deepEqual(await checkConfig(file, builtinPlugins), []);
    const { plugins } = parseToml(readFileSync(file, 'utf8'), file) as { plugins: Record<string, { rules?: unknown }> };
    const rules = readRules(plugins['io.containerd.image-verifier.v1.policy']?.rules);
    assert.deepEqual(
      rules.map(({ action }) => action),
      ['require-signature', 'allow'],
    );
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('and so is its hosts.toml', async () => {
  const [text = ''] = blocks('toml').filter((block) => block.includes('server ='));
  const hosts = await parseHostsFile(text, '/', 'registry.example.com');
  assert.deepEqual(
    hosts.map(({ host, credentials }) => [host, credentials]),
    [
      ['mirror.example.com', []],
      ['registry.example.com', ['vault']],
    ],
  );
});

test('the verifier module does what is said of it', async () => {
  const [source = ''] = blocks('js').filter((block) => block.includes('verifyImage'));
  const { verifyImage } = (await import(`data:text/javascript,${encodeURIComponent(source)}`)) as {
    verifyImage(image: object): Promise<{ ok: boolean; reason: string }>;
  };
  const judge = (name: string) =>
    verifyImage({ name, descriptor: { digest: 'sha256:0' }, options: { forbidden: ['latest'] } });
  assert.equal((await judge('registry.example.com:5000/app:1')).ok, true);
  assert.equal((await judge('registry.example.com:5000/app:latest')).ok, false);
});
