import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CommandResult, run } from '../lib/processes.ts';
import { PullLab } from '../lib/pull-lab.ts';
import { registryUser, TestRegistry } from '../lib/registry.ts';

const cosign = path.resolve(import.meta.dirname, '../../.cache/go-bin/cosign');
const skip =
  process.getuid?.() !== 0
    ? 'the daemon needs root'
    : existsSync(cosign)
      ? false
      : 'cosign is not installed in .cache/go-bin (npm test does it when Go is there)';

describe('signatures that cosign made', { skip }, () => {
  const lab = new PullLab('signatures');
  const sign = (key: string, reference: string, ...flags: string[]): Promise<CommandResult> =>
    run(cosign, ['sign', '--key', key, '--tlog-upload=false', '--allow-http-registry', '-y', ...flags, reference], {
      env: { COSIGN_PASSWORD: '' },
    });
  const makeKey = async (name: string, args: string[]): Promise<string> => {
    mkdirSync(lab.at('keys'), { recursive: true });
    await run(cosign, [...args, '--output-key-prefix', name], { cwd: lab.at('keys'), env: { COSIGN_PASSWORD: '' } });
    return lab.at('keys', `${name}.key`);
  };
  let closed: TestRegistry | undefined;
  let release = '';
  let ed = '';
  let stranger = '';

  before(async () => {
    await lab.fill(['signed/app', 'signed/unsigned']);
    release = await makeKey('release', ['generate-key-pair']);
    stranger = await makeKey('stranger', ['generate-key-pair']);
    await run('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', lab.at('ed.pem')]);
    ed = await makeKey('ed', ['import-key-pair', '--key', lab.at('ed.pem')]);
    // The same images once more, for those with a login, under a name that only hosts.toml knows.
    closed = await TestRegistry.start(lab.at(), { storage: lab.storage, basic: true });
    mkdirSync(lab.at('certs.d/registry.test'), { recursive: true });
    writeFileSync(lab.at('certs.d/registry.test/hosts.toml'), `server = "http://${closed.address}"\n`);
    const auth = Buffer.from(`${registryUser.name}:${registryUser.password}`).toString('base64');
    writeFileSync(lab.at('config.json'), JSON.stringify({ auths: { [closed.address]: { auth } } }), { mode: 0o600 });
    await lab.startDaemon(`
[plugins.'io.containerd.transfer.v1.local']
  config_path = '${lab.at('certs.d')}'
[plugins.'io.gantry.credentials.v1.providers'.providers.config]
  type = 'docker-config'
  path = '${lab.at('config.json')}'
[plugins.'io.containerd.image-verifier.v1.policy']
  [[plugins.'io.containerd.image-verifier.v1.policy'.rules]]
    repositories = ['*/denied/**']
    action = 'deny'
  [[plugins.'io.containerd.image-verifier.v1.policy'.rules]]
    repositories = ['*/signed/**']
    action = 'require-signature'
    keys = ['${lab.at('keys/release.pub')}', '${lab.at('keys/ed.pub')}']
`);
  });
  after(async () => {
    await closed?.close();
    await lab.close();
  });

  for (const client of lab.clients) {
    test(`by ${client.name}`, { skip: client.missing ?? false }, async () => {
      const copy = async (name: string): Promise<string> => {
        const repository = `${lab.registry.address}/signed/${name}-${lab.clients.indexOf(client)}`;
        await lab.copy(`${lab.registry.address}/signed/app:1`, `${repository}:1`);
        return repository;
      };
      await lab.denied(
        client,
        `${lab.registry.address}/signed/unsigned:1`,
        /requires a signature by one of the keys .*: none found in /,
      );
      // Each kind once; what differs between clients is only how they ask.
      const kinds = [
        ['tag', release, []],
        ['bundle', release, ['--new-bundle-format=true']],
        ['ed-tag', ed, []],
        ['ed-bundle', ed, ['--new-bundle-format=true']],
      ] as const;
      for (const [kind, key, flags] of client === lab.clients[0] ? kinds : kinds.slice(1, 2)) {
        const repository = await copy(kind);
        await sign(stranger, `${repository}@${lab.digest}`, ...flags);
        await lab.denied(
          client,
          `${repository}:1`,
          new RegExp(
            `image verifier policy blocked pull of ${repository}:1 with digest ${lab.digest} for reason: rule 2 \\(\\*/signed/\\*\\*\\) requires a signature by one of the keys .*: signature sha256:[0-9a-f]{64} in .* is by none of the keys\\n`,
          ),
        );
        await sign(key, `${repository}@${lab.digest}`, ...flags);
        await lab.allowed(client, `${repository}:1`);
        assert.match(
          lab.daemon.log(),
          new RegExp(
            `msg="Image verifier allowed pull" .*name="${repository}:1" .*reason="rule 2 .* requires a signature: signature sha256:[0-9a-f]{64} in ${repository}[:@].* by key .*/${key === ed ? 'ed' : 'release'}\\.pub \\(SHA256:`,
          ),
        );
      }
    });
  }

  const client = lab.clients.find(({ missing }) => missing === undefined);
  const noClient = client ? false : 'no client is there';

  test('are fetched with the hosts and the login of the pull', { skip: noClient }, async () => {
    const repository = `${lab.registry.address}/signed/elsewhere`;
    await lab.copy(`${lab.registry.address}/signed/app:1`, `${repository}:1`);
    const name = 'registry.test/signed/elsewhere:1';
    await lab.denied(client!, name, /none found in registry\.test\/signed\/elsewhere/);
    await sign(release, `${repository}@${lab.digest}`);
    await lab.allowed(client!, name);
    assert.match(lab.daemon.log(), /in registry\.test\/signed\/elsewhere:sha256-[0-9a-f]{64}\.sig by key/);
  });
});
