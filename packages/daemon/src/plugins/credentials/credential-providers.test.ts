import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import {
  credentialProviderContract,
  knownHost,
  type ProviderHarness,
  secretWord,
} from '../../core/credentials/credential-provider-contract.ts';
import { ProgramRunner } from '../../core/programs/program-runner.ts';
import { DockerConfigProvider } from './docker-config-provider.ts';
import { HelperProvider } from './helper-provider.ts';
import { KubeletProvider } from './kubelet-provider.ts';
import { ModuleProvider } from './module-provider.ts';

const makeDir = (): string => mkdtempSync(path.join(tmpdir(), 'gantry-credentials-'));

function program(file: string, script: string): string {
  writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

function harness(dir: string, providers: Pick<ProviderHarness, 'good' | 'broken' | 'hanging'>): ProviderHarness {
  return {
    ...providers,
    log: () => '',
    async close() {
      for (const provider of Object.values(providers)) await provider?.close?.();
      rmSync(dir, { recursive: true });
    },
  };
}

const programs = ProgramRunner.open();
const settings = { args: [], env: {}, timeoutMs: 20_000, programs };
const leak = `echo ${secretWord} >&2; echo '{"Username":"user","Secret":"${secretWord}"}'; exit 3`;
const helperScript = `
read -r server
if [ "$server" = ${knownHost} ]; then echo '{"ServerURL":"x","Username":"user","Secret":"${secretWord}"}'
else echo 'credentials not found in native keychain'; exit 1; fi`;

credentialProviderContract('a Docker credential helper', async () => {
  const dir = makeDir();
  const at = (name: string, script: string) => program(path.join(dir, name), script);
  return harness(dir, {
    good: new HelperProvider({ ...settings, file: at('good', helperScript) }),
    broken: new HelperProvider({ ...settings, file: at('broken', leak) }),
    hanging: new HelperProvider({ ...settings, file: at('hanging', 'sleep 600'), timeoutMs: 300 }),
  });
});

credentialProviderContract('config.json', async () => {
  const dir = makeDir();
  const write = (name: string, value: unknown) => {
    const file = path.join(dir, name);
    writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value), { mode: 0o600 });
    return { file, env: { PATH: dir }, timeoutMs: 20_000, programs };
  };
  const auth = Buffer.from(`user:${secretWord}`).toString('base64');
  return harness(dir, {
    good: new DockerConfigProvider(write('config.json', { auths: { [knownHost]: { auth } } })),
    broken: new DockerConfigProvider(write('broken.json', `{"auths": {"x": {"auth": "${secretWord}`)),
  });
});

credentialProviderContract('config.json with a helper', async () => {
  const dir = makeDir();
  program(path.join(dir, 'docker-credential-good'), helperScript);
  program(path.join(dir, 'docker-credential-broken'), leak);
  const write = (name: string) => {
    const file = path.join(dir, `${name}.json`);
    writeFileSync(file, JSON.stringify({ credsStore: name }));
    return { file, env: { PATH: `${dir}:/usr/bin:/bin` }, timeoutMs: 20_000, programs };
  };
  return harness(dir, {
    good: new DockerConfigProvider(write('good')),
    broken: new DockerConfigProvider(write('broken')),
  });
});

credentialProviderContract('a program of the kubelet', async () => {
  const dir = makeDir();
  const at = (name: string, script: string) => program(path.join(dir, name), script);
  const answer = JSON.stringify({
    kind: 'CredentialProviderResponse',
    apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
    cacheKeyType: 'Registry',
    auth: { [knownHost]: { username: 'user', password: secretWord }, 'x.io': { username: 'x', password: 'y' } },
  });
  const common = { ...settings, defaultCacheMs: 60_000 };
  return harness(dir, {
    good: new KubeletProvider({ ...common, file: at('good', `cat >/dev/null; echo '${answer}'`) }),
    broken: new KubeletProvider({ ...common, file: at('broken', leak) }),
    hanging: new KubeletProvider({ ...common, file: at('hanging', 'sleep 600'), timeoutMs: 300 }),
  });
});

credentialProviderContract('a module', async () => {
  const dir = makeDir();
  const make = (name: string, source: string, timeoutMs = 20_000) => {
    const file = path.join(dir, `${name}.mjs`);
    writeFileSync(file, source);
    return new ModuleProvider({ name, file, timeoutMs, options: { host: knownHost } });
  };
  return harness(dir, {
    good: make(
      'good',
      `export const getCredentials = ({ image, options }) => image.startsWith(options.host) ? { username: 'user', password: '${secretWord}' } : undefined;`,
    ),
    broken: make(
      'broken',
      `export const getCredentials = () => { console.log('${secretWord}'); return { secret: '${secretWord}' }; };`,
    ),
    hanging: make('hanging', 'export const getCredentials = () => { for (;;); };', 500),
  });
});

describe('programs of the kubelet', () => {
  let dir: string;
  let now = 0;
  const asked = (): string[] => {
    try {
      return readFileSync(path.join(dir, 'asked'), 'utf8').trim().split('\n');
    } catch {
      return [];
    }
  };
  const provider = (answer: Record<string, unknown>) =>
    new KubeletProvider({
      file: program(
        path.join(dir, 'p'),
        `cat >> ${dir}/asked; echo >> ${dir}/asked; echo '${JSON.stringify({
          kind: 'CredentialProviderResponse',
          apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
          ...answer,
        })}'`,
      ),
      args: [],
      env: {},
      timeoutMs: 20_000,
      programs,
      defaultCacheMs: 1000,
      now: () => now,
    });
  const request = (image: string) => ({ host: image.split('/')[0]!, reference: `${image}:1` });
  const auth = { '*.io': { username: 'u', password: 'general' }, 'a.io/team': { username: 'u', password: 'special' } };

  before(() => {
    dir = makeDir();
  });
  beforeEach(() => rmSync(path.join(dir, 'asked'), { force: true }));
  after(() => rmSync(dir, { recursive: true }));

  test('the request, and the login of the most special pattern', async () => {
    const kubelet = provider({ cacheKeyType: 'Image', auth });
    assert.deepEqual(await kubelet.get(request('a.io/team/x')), { kind: 'password', username: 'u', secret: 'special' });
    assert.deepEqual(await kubelet.get(request('a.io/other')), { kind: 'password', username: 'u', secret: 'general' });
    assert.equal(await kubelet.get(request('a.example.com/x')), undefined);
    assert.deepEqual(JSON.parse(asked()[0]!), {
      kind: 'CredentialProviderRequest',
      apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
      image: 'a.io/team/x',
    });
  });

  test('answers are kept by image, registry or globally, for as long as they say', async () => {
    const images = ['a.io/x', 'a.io/x', 'a.io/y', 'b.io/x'];
    const count = async (answer: Record<string, unknown>, later = 0): Promise<number> => {
      rmSync(path.join(dir, 'asked'), { force: true });
      const kubelet = provider({ auth, ...answer });
      for (const image of images) {
        await kubelet.get(request(image));
        now += later;
      }
      return asked().length;
    };
    assert.equal(await count({ cacheKeyType: 'Image' }), 3);
    assert.equal(await count({ cacheKeyType: 'Registry' }), 2);
    assert.equal(await count({ cacheKeyType: 'Global' }), 1);
    assert.equal(await count({ cacheKeyType: 'Global', cacheDuration: '0s' }), 4);
    assert.equal(await count({ cacheKeyType: 'Global' }, 1000), 4);
    assert.equal(await count({ cacheKeyType: 'Global', cacheDuration: '1h0m0s' }, 1000), 1);
  });

  test('many at a time start one process', async () => {
    const kubelet = provider({ cacheKeyType: 'Image', cacheDuration: '0s', auth });
    await Promise.all(Array.from({ length: 4 }, () => kubelet.get(request('a.io/x'))));
    assert.equal(asked().length, 1);
  });

  test('an answer of another kind is refused', async () => {
    const cases: [Record<string, unknown>, RegExp][] = [
      [{ cacheKeyType: 'Never', auth }, /cacheKeyType is not/],
      [{ cacheKeyType: 'Image', auth, apiVersion: 'credentialprovider.kubelet.k8s.io/v2' }, /apiVersion is not/],
      [{ cacheKeyType: 'Image', auth, kind: 'Pod' }, /kind is another/],
      [{ cacheKeyType: 'Image', auth: { 'a.io': { username: 'u' } } }, /no username and password/],
      [{ cacheKeyType: 'Image', cacheDuration: 'soon' }, /cacheDuration is no duration/],
    ];
    for (const [answer, message] of cases) await assert.rejects(provider(answer).get(request('a.io/x')), message);
  });
});

test('nothing that others could have written is believed or run', async () => {
  const dir = makeDir();
  try {
    const config = path.join(dir, 'config.json');
    const file = program(path.join(dir, 'docker-credential-x'), helperScript);
    writeFileSync(config, JSON.stringify({ credsStore: 'x' }));
    const provider = new DockerConfigProvider({ file: config, env: { PATH: dir }, timeoutMs: 20_000, programs });
    chmodSync(file, 0o777);
    await assert.rejects(provider.get({ host: knownHost }), /docker-credential-x: not trusted/);
    chmodSync(config, 0o666);
    await assert.rejects(provider.get({ host: knownHost }), /config\.json: not trusted/);
    chmodSync(config, 0o600);
    writeFileSync(config, JSON.stringify({ credsStore: '../x' }));
    await assert.rejects(provider.get({ host: knownHost }), /is no name of a credential helper/);
    writeFileSync(config, JSON.stringify({ credsStore: 'nowhere' }));
    await assert.rejects(provider.get({ host: knownHost }), /docker-credential-nowhere is not in the daemon's PATH/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
