import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { buildImage, busyboxLayer } from '../lib/images.ts';
import { type CommandResult, endProcess, eventually, run } from '../lib/processes.ts';
import { registryUser, TestRegistry } from '../lib/registry.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'the daemon needs root';
const top = path.resolve(import.meta.dirname, '../..');
const cosign = path.join(top, '.cache/go-bin/cosign');
const noCosign = existsSync(cosign)
  ? false
  : 'cosign is not installed in .cache/go-bin (npm test does it when Go is there)';

const clients = ctrClients().filter(({ transfer }) => transfer);

function program(file: string, script: string): string {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

function which(name: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(':')
    .map((directory) => path.join(directory, name))
    .find((file) => existsSync(file));
}

/** All that a daemon wrote, file by file. */
function filesOf(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => path.join(directory, name))
    .filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile());
}

describe('trust', { skip }, () => {
  const temp = makeTempDir('trust');
  const at = (...parts: string[]): string => path.join(temp.path, ...parts);
  const binDir = at('verifiers');
  let open: TestRegistry;
  let closed: TestRegistry;
  let daemon: TestDaemon;
  let digest = '';

  const sessionOf = (client: CtrClient): CtrSession =>
    new CtrSession(client, daemon.address, `trust-${clients.indexOf(client)}`);
  const pull = async (client: CtrClient, name: string, ...flags: string[]): Promise<CommandResult> => {
    const result = await sessionOf(client).try('images', 'pull', '--plain-http', ...flags, name);
    assert.ok(!`${result.stdout}${result.stderr}`.includes(registryUser.password));
    return result;
  };
  const allowed = async (client: CtrClient, name: string, ...flags: string[]): Promise<void> => {
    const { code, stderr } = await pull(client, name, ...flags);
    assert.equal(code, 0, stderr);
    const session = sessionOf(client);
    assert.match(await session.ok('images', 'ls', '-q'), new RegExp(`^${name}$`, 'm'));
    await session.ok('images', 'rm', name);
  };
  const denied = async (client: CtrClient, name: string, message: RegExp, ...flags: string[]): Promise<void> => {
    const { code, stderr } = await pull(client, name, ...flags);
    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.ok(!(await sessionOf(client).ok('images', 'ls', '-q')).includes(name));
  };

  before(async () => {
    const layout = at('image');
    await buildImage(layout, [busyboxLayer], { Cmd: ['sh'] });
    const storage = at('storage');
    open = await TestRegistry.start(temp.path, { storage });
    closed = await TestRegistry.start(temp.path, { storage, basic: true });
    const names = ['plain/app', 'denied/app', 'module/app', 'signed/app', 'signed/unsigned', 'secret/app'];
    for (const name of names) await open.fill(layout, `${name}:1`);
    const index = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8')) as {
      manifests: { digest: string }[];
    };
    digest = index.manifests[0]!.digest;
    mkdirSync(binDir);

    writeFileSync(
      at('verifier.mjs'),
      `export async function verifyImage({ name, descriptor, options }) {
         if (!name.includes(options.about)) return { ok: true, reason: 'not mine' };
         if (name.endsWith(':loop')) for (;;);
         return { ok: false, reason: 'the module does not like ' + descriptor.digest };
       }`,
    );
    writeFileSync(
      at('credentials.mjs'),
      `import { readFileSync } from 'node:fs';
       export async function getCredentials({ image, options }) {
         if (!image.endsWith('/secret/app')) return undefined;
         return { username: options.user, password: readFileSync(options.file, 'utf8') };
       }`,
    );
    writeFileSync(at('password'), registryUser.password, { mode: 0o600 });
    daemon = new TestDaemon(
      at('d'),
      `
[plugins.'io.containerd.image-verifier.v1.bindir']
  bin_dir = '${binDir}'
  max_verifiers = 3
  per_verifier_timeout = '3s'
[plugins.'io.containerd.image-verifier.v1.module'.modules.taste]
  path = '${at('verifier.mjs')}'
  timeout = '3s'
  options = { about = '/module/' }
[plugins.'io.containerd.image-verifier.v1.policy']
  default_action = 'allow'
  [[plugins.'io.containerd.image-verifier.v1.policy'.rules]]
    repositories = ['*/denied/**']
    action = 'deny'
  [[plugins.'io.containerd.image-verifier.v1.policy'.rules]]
    repositories = ['*/signed/**']
    action = 'require-signature'
    keys = ['${at('keys/release.pub')}', '${at('keys/ed.pub')}']
[plugins.'io.containerd.transfer.v1.local']
  config_path = '${at('certs.d')}'
[plugins.'io.gantry.credentials.v1.providers']
  usual = ['helper']
[plugins.'io.gantry.credentials.v1.providers'.providers.helper]
  type = 'docker-helper'
  path = '${at('helpers/docker-credential-test')}'
[plugins.'io.gantry.credentials.v1.providers'.providers.kubelet]
  type = 'kubelet'
  path = '${at('helpers/kubelet-provider')}'
  match_images = ['${closed.address}']
[plugins.'io.gantry.credentials.v1.providers'.providers.config]
  type = 'docker-config'
  path = '${at('docker/config.json')}'
[plugins.'io.gantry.credentials.v1.providers'.providers.pass]
  type = 'docker-helper'
  path = '/usr/bin/docker-credential-pass'
  env = { GNUPGHOME = '${at('gnupg')}', PASSWORD_STORE_DIR = '${at('pass')}' }
[plugins.'io.gantry.credentials.v1.providers'.providers.module]
  type = 'module'
  path = '${at('credentials.mjs')}'
  options = { user = '${registryUser.name}', file = '${at('password')}' }
`,
    );
    await daemon.start();
  });

  after(async () => {
    await daemon?.stop();
    await open?.close();
    await closed?.close();
    await temp.remove();
  });

  for (const client of clients) {
    describe(`verifiers, by ${client.name}`, { skip: client.missing ?? false }, () => {
      let name = '';
      const blocked = (why: string): RegExp =>
        new RegExp(
          `ctr: .*image verifier bindir blocked pull of ${name} with digest ${digest} for reason: verifier ${why}\\n`,
        );
      const unjudged = (why: string): RegExp =>
        new RegExp(
          `ctr: .*blocking pull of ${name} with digest ${digest}: image verifier bindir returned error: failed to call verifier ${why}\\n`,
        );
      const runtime = '\\(runtime [\\d.]+[µm]?s\\)';

      before(() => {
        name = `${open.address}/plain/app:1`;
      });
      beforeEach(() => {
        rmSync(binDir, { recursive: true, force: true });
        mkdirSync(binDir);
      });

      test('no directory, no programs, and programs that say yes let images through', async () => {
        await allowed(client, name);
        program(
          path.join(binDir, 'v1'),
          `echo "$@" > ${at('args')}; cat > ${at('input')}; echo fine; echo to the log >&2`,
        );
        await allowed(client, name);
        const type = 'application/vnd.oci.descriptor.v1+json';
        assert.equal(readFileSync(at('args'), 'utf8'), `-name ${name} -digest ${digest} -stdin-media-type ${type}\n`);
        assert.deepEqual(Object.keys(JSON.parse(readFileSync(at('input'), 'utf8')) as object), [
          'mediaType',
          'digest',
          'size',
        ]);
        assert.match(daemon.log(), /level=debug msg="to the log" .*image_verifier=v1 .*stream=stderr/);
        rmSync(binDir, { recursive: true });
        await allowed(client, name);
      });

      test('a program that says no blocks, and its words reach the client', async () => {
        program(path.join(binDir, 'v0'), 'echo yes');
        program(path.join(binDir, 'v1'), 'echo denied by rule 7; exit 1');
        await denied(client, name, blocked('v1 rejected image \\(exit code 1\\): denied by rule 7'));
        assert.match(daemon.log(), /level=warning msg="Image verifier blocked pull"/);
      });

      test('more programs than max_verifiers: the first by name are asked', async () => {
        for (const verifier of ['a', 'b', 'c']) program(path.join(binDir, verifier), 'exit 0');
        program(path.join(binDir, 'd'), 'exit 1');
        await allowed(client, name);
        program(path.join(binDir, 'aa'), 'echo early; exit 9');
        await denied(client, name, blocked('aa rejected image \\(exit code 9\\): early'));
      });

      test('one that is slow, crashes or cannot be started blocks', async () => {
        const file = path.join(binDir, 'v1');
        program(file, 'sleep 600');
        await denied(client, name, unjudged(`v1 ${runtime}: waiting on command to exit: signal: killed`));
        program(file, 'kill -SEGV $$');
        await denied(client, name, unjudged(`v1 ${runtime}: waiting on command to exit: signal: segmentation fault`));
        chmodSync(file, 0o644);
        await denied(client, name, unjudged(`v1 ${runtime}: starting process: fork/exec ${file}: permission denied`));
        chmodSync(file, 0o777);
        await denied(client, name, unjudged(`v1 ${runtime}: starting process: ${file}: not trusted: others may .*`));
      });

      test('a module denies, and is given up when it loops', async () => {
        await denied(
          client,
          `${open.address}/module/app:1`,
          new RegExp(
            `verifier module blocked pull of .*: verifier taste rejected image: the module does not like ${digest}\n`,
          ),
        );
        await run('skopeo', [
          'copy',
          '-q',
          '--insecure-policy',
          '--src-tls-verify=false',
          '--dest-tls-verify=false',
          `docker://${open.address}/module/app:1`,
          `docker://${open.address}/module/app:loop`,
        ]);
        await denied(
          client,
          `${open.address}/module/app:loop`,
          /failed to call verifier taste: module taste gave no answer in 3000 ms/,
        );
        await allowed(client, name);
      });

      test('the policy denies by repository and requires signatures', async () => {
        await denied(
          client,
          `${open.address}/denied/app:1`,
          /image verifier policy blocked pull of .* for reason: rule 1 \(\*\/denied\/\*\*\) denies it\n/,
        );
        mkdirSync(at('keys'), { recursive: true });
        await denied(client, `${open.address}/signed/app:1`, /returned error: key .*release\.pub: ENOENT/);
      });
    });
  }

  test('a verifier that a killed daemon left running is ended by the next', async (context) => {
    const client = clients.find(({ missing }) => missing === undefined);
    if (!client) return context.skip('no client is there');
    mkdirSync(binDir, { recursive: true });
    rmSync(at('pid'), { force: true });
    program(path.join(binDir, 'v1'), `echo $$ > ${at('pid')}.new; mv ${at('pid')}.new ${at('pid')}; sleep 600`);
    const pulling = pull(client, `${open.address}/plain/app:1`);
    const pid = await eventually('the verifier runs', () =>
      existsSync(at('pid')) ? readFileSync(at('pid'), 'utf8').trim() : undefined,
    );
    await daemon.kill();
    assert.equal((await pulling).code, 1);
    rmSync(binDir, { recursive: true });
    assert.ok(existsSync(`/proc/${pid}/stat`));
    await daemon.start();
    const isGone = (): true | undefined => {
      const state = existsSync(`/proc/${pid}/stat`)
        ? readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)
        : 'X';
      return /^[XZ]/.test(state ?? '') || undefined;
    };
    await eventually('the verifier is gone', isGone);
    await allowed(client, `${open.address}/plain/app:1`);
  });

  describe('signatures that cosign made', { skip: noCosign }, () => {
    const sign = (key: string, reference: string, ...flags: string[]): Promise<CommandResult> =>
      run(cosign, ['sign', '--key', key, '--tlog-upload=false', '--allow-http-registry', '-y', ...flags, reference], {
        env: { COSIGN_PASSWORD: '' },
      });
    const makeKey = async (name: string, args: string[]): Promise<string> => {
      mkdirSync(at('keys'), { recursive: true });
      await run(cosign, [...args, '--output-key-prefix', name], { cwd: at('keys'), env: { COSIGN_PASSWORD: '' } });
      return at('keys', `${name}.key`);
    };
    let release = '';
    let ed = '';
    let stranger = '';

    before(async () => {
      rmSync(binDir, { recursive: true, force: true });
      release = await makeKey('release', ['generate-key-pair']);
      stranger = await makeKey('stranger', ['generate-key-pair']);
      await run('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', at('ed.pem')]);
      ed = await makeKey('ed', ['import-key-pair', '--key', at('ed.pem')]);
    });

    for (const client of clients) {
      test(`by ${client.name}`, { skip: client.missing ?? false }, async () => {
        const copy = async (name: string): Promise<string> => {
          const reference = `${open.address}/signed/${name}-${clients.indexOf(client)}`;
          await run('skopeo', [
            'copy',
            '-q',
            '--insecure-policy',
            '--src-tls-verify=false',
            '--dest-tls-verify=false',
            `docker://${open.address}/signed/app:1`,
            `docker://${reference}:1`,
          ]);
          return reference;
        };
        await denied(
          client,
          `${open.address}/signed/unsigned:1`,
          /requires a signature by one of the keys .*: none found in /,
        );
        // Each kind once; what differs between clients is only how they ask.
        const kinds = [
          ['tag', release, []],
          ['bundle', release, ['--new-bundle-format=true']],
          ['ed-tag', ed, []],
          ['ed-bundle', ed, ['--new-bundle-format=true']],
        ] as const;
        for (const [kind, key, flags] of client === clients[0] ? kinds : kinds.slice(1, 2)) {
          const repository = await copy(kind);
          await sign(stranger, `${repository}@${digest}`, ...flags);
          await denied(
            client,
            `${repository}:1`,
            new RegExp(
              `image verifier policy blocked pull of ${repository}:1 with digest ${digest} for reason: rule 2 \\(\\*/signed/\\*\\*\\) requires a signature by one of the keys .*: signature sha256:[0-9a-f]{64} in .* is by none of the keys\\n`,
            ),
          );
          await sign(key, `${repository}@${digest}`, ...flags);
          await allowed(client, `${repository}:1`);
          assert.match(
            daemon.log(),
            new RegExp(
              `msg="Image verifier allowed pull" .*name="${repository}:1" .*reason="rule 2 .* requires a signature: signature sha256:[0-9a-f]{64} in ${repository}[:@].* by key .*/${key === ed ? 'ed' : 'release'}\\.pub \\(SHA256:`,
            ),
          );
        }
      });
    }
  });

  describe('credentials', () => {
    const { name: user, password } = registryUser;
    const basic = Buffer.from(`${user}:${password}`).toString('base64');
    const hostsFor = (providers: string | undefined): void => {
      const directory = at('certs.d', closed.address);
      rmSync(directory, { recursive: true, force: true });
      if (providers === undefined) return;
      mkdirSync(directory, { recursive: true });
      const text = `server = "http://${closed.address}"\n[credentials]\nproviders = ${providers}\n`;
      writeFileSync(path.join(directory, 'hosts.toml'), text);
    };
    const helperSays = (answer: string, more = ''): void => {
      program(at('helpers/docker-credential-test'), `cat > ${at('asked')}; ${more} ${answer}`);
    };
    const login = JSON.stringify({ ServerURL: 'x', Username: user, Secret: password });
    let name = '';
    let seen = '';
    let events: ReturnType<typeof spawn> | undefined;

    before(() => {
      name = `${closed.address}/secret/app:1`;
      rmSync(binDir, { recursive: true, force: true });
      const first = clients.find(({ missing }) => missing === undefined);
      if (!first) return;
      const session = sessionOf(first);
      events = spawn(first.file, session.arguments(['events']), { stdio: ['ignore', 'pipe', 'ignore'] });
      events.stdout?.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
      });
    });
    after(async () => {
      if (events) await endProcess(events);
    });

    for (const client of clients) {
      describe(`by ${client.name}`, { skip: client.missing ?? false }, () => {
        const refused = /authorization failed|no basic auth credentials/;

        test('without a login there is no image; the client’s own comes first', async () => {
          hostsFor('[]');
          await denied(client, name, refused);
          hostsFor(undefined);
          helperSays(`echo '{"Username":"nobody","Secret":"wrong"}'`);
          await denied(client, name, refused);
          await allowed(client, name, '--user', `${user}:${password}`);
        });

        test('a Docker credential helper', async () => {
          hostsFor(undefined);
          helperSays(`echo '${login}'`);
          await allowed(client, name, '--http-trace');
          assert.equal(readFileSync(at('asked'), 'utf8'), closed.address);
          helperSays(`echo '${login}' >&2; echo '${login}'; exit 4`);
          await denied(
            client,
            name,
            /credential provider helper failed for .*\/secret\/app: .*docker-credential-test get: exit status 4/,
          );
        });

        test('a program of the kubelet, named by hosts.toml', async () => {
          hostsFor('["kubelet"]');
          const answer = {
            kind: 'CredentialProviderResponse',
            apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
            cacheKeyType: 'Registry',
            cacheDuration: '0s',
            auth: { [closed.address]: { username: user, password } },
          };
          program(at('helpers/kubelet-provider'), `cat > ${at('asked')}; echo '${JSON.stringify(answer)}'`);
          await allowed(client, name, '--http-trace');
          assert.equal(
            (JSON.parse(readFileSync(at('asked'), 'utf8')) as { image: string }).image,
            name.replace(/:1$/, ''),
          );
          program(at('helpers/kubelet-provider'), `echo ${password} >&2; exit 1`);
          await denied(client, name, /credential provider kubelet failed .*exit status 1/);
        });

        test('config.json of Docker', async () => {
          hostsFor('["config"]');
          mkdirSync(at('docker'), { recursive: true });
          const write = (auth: string): void =>
            writeFileSync(at('docker/config.json'), JSON.stringify({ auths: { [closed.address]: { auth } } }), {
              mode: 0o600,
            });
          write(Buffer.from('a:b').toString('base64'));
          await denied(client, name, refused);
          write(basic);
          await allowed(client, name, '--http-trace');
          chmodSync(at('docker/config.json'), 0o666);
          await denied(client, name, /config\.json: not trusted: others may write to it \(mode 0666\)/);
          rmSync(at('docker/config.json'));
        });

        test('an ES module', async () => {
          hostsFor('["module"]');
          await allowed(client, name, '--http-trace');
          const session = sessionOf(client);
          await session.ok('images', 'pull', '--plain-http', name);
          await session.ok('images', 'push', '--plain-http', name.replace(/:1$/, ':pushed'), name);
          await session.ok('images', 'rm', name);
        });

        test('a provider that is not configured is an error', async () => {
          hostsFor('["nobody"]');
          await denied(client, name, /names credential provider "nobody", which is not configured/);
        });
      });
    }

    const missing = ['pass', 'gpg', 'docker-credential-pass'].filter((tool) => which(tool) === undefined);
    const noPass = missing.length > 0 ? `not installed: ${missing.join(', ')}` : (clients[0]?.missing ?? false);

    test('ctr registry login keeps a login in pass, ctr and the daemon find it there', { skip: noPass }, async () => {
      const env = {
        GNUPGHOME: at('gnupg'),
        PASSWORD_STORE_DIR: at('pass'),
        DOCKER_CONFIG: at('login'),
      };
      mkdirSync(env.GNUPGHOME, { mode: 0o700 });
      mkdirSync(env.DOCKER_CONFIG);
      const config = path.join(env.DOCKER_CONFIG, 'config.json');
      const ctr = (args: string[], input = ''): Promise<CommandResult> =>
        run(bin.ctr, ['-a', daemon.address, '-n', 'login', ...args], { env, input, mayFail: true });
      const loginArgs = ['registry', 'login', '--plain-http', '--username', user, '--password-stdin', closed.address];
      try {
        await run('gpg', ['--batch', '--passphrase', '', '--quick-gen-key', 'test@example.com'], { env });
        await run('pass', ['init', 'test@example.com'], { env });
        writeFileSync(config, JSON.stringify({ credsStore: 'pass', HttpHeaders: { a: 'b' } }));
        const wrong = await ctr(loginArgs, 'wrong\n');
        assert.equal(wrong.code, 1);
        assert.match(wrong.stderr, /refused the login/);
        assert.ok(!existsSync(path.join(env.PASSWORD_STORE_DIR, 'docker-credential-helpers')));
        const good = await ctr(loginArgs, `${password}\n`);
        assert.deepEqual([good.code, good.stdout, good.stderr], [0, 'Login Succeeded\n', '']);
        assert.ok(existsSync(path.join(env.PASSWORD_STORE_DIR, 'docker-credential-helpers')));
        assert.deepEqual(JSON.parse(readFileSync(config, 'utf8')), {
          credsStore: 'pass',
          HttpHeaders: { a: 'b' },
          auths: { [closed.address]: {} },
        });
        // The client asks pass and answers the daemon.
        hostsFor('[]');
        const pulled = await ctr(['images', 'pull', '--plain-http', name]);
        assert.equal(pulled.code, 0, pulled.stderr);
        // The daemon asks pass itself.
        hostsFor('["pass"]');
        await allowed(clients.find(({ missing: why }) => why === undefined)!, name);
        const out = await ctr(['registry', 'logout', closed.address]);
        assert.equal(out.stdout, `Removed the login of ${closed.address}\n`);
        assert.equal(
          (await ctr(['registry', 'logout', closed.address])).stdout,
          `Not logged in to ${closed.address}\n`,
        );
        hostsFor('[]');
        assert.equal((await ctr(['images', 'pull', '--plain-http', name])).code, 1);
      } finally {
        await run('gpgconf', ['--kill', 'all'], { env, mayFail: true });
      }
    });

    test('ctr registry login asks at the terminal, and does not show the password', async () => {
      const words = [bin.ctr, 'registry', 'login', '--plain-http', closed.address].map((word) => `'${word}'`).join(' ');
      const child = spawn('script', ['-qec', words, '/dev/null'], {
        env: { ...process.env, DOCKER_CONFIG: at('asked-login') },
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      let shown = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        shown += text;
      });
      try {
        for (const [question, answer] of [
          ['Username: ', user],
          ['Password: ', password],
        ] as const) {
          await eventually(question, () => shown.includes(question) || undefined);
          child.stdin.write(`${answer}\r`);
        }
        await eventually('it ends', () => (child.exitCode === null ? undefined : true));
        assert.match(shown, /Login Succeeded/);
        assert.match(shown, new RegExp(`Username: ${user}\r\n`));
        assert.ok(!shown.includes(password));
      } finally {
        await endProcess(child);
      }
    });

    test('ctr registry login without a helper keeps it in a file that only its owner reads', async () => {
      const env = { DOCKER_CONFIG: at('fresh') };
      const args = ['registry', 'login', '--plain-http', '-u', user, '--password-stdin', closed.address];
      const { stdout, stderr } = await run(bin.ctr, args, { env, input: password });
      assert.equal(stdout, 'Login Succeeded\n');
      assert.match(stderr, /the login is kept unencrypted in .*config\.json/);
      const file = path.join(env.DOCKER_CONFIG, 'config.json');
      assert.equal(statSync(file).mode & 0o777, 0o600);
      assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), { auths: { [closed.address]: { auth: basic } } });
      // docker-registry and skopeo read what was written as Docker's own.
      await run('skopeo', ['inspect', '--tls-verify=false', '--authfile', file, `docker://${name}`]);
    });

    test('no secret is in anything that the daemon wrote, sent or was configured with', async () => {
      await eventually('events came', () => (seen.includes('/images/create') ? true : undefined));
      assert.match(daemon.log(), /msg="credentials found"/);
      assert.match(daemon.log(), /msg="credential provider failed"/);
      const secrets = [password, basic, Buffer.from(password).toString('base64')];
      const leaks = filesOf(daemon.directory).filter((file) => {
        const bytes = readFileSync(file);
        return secrets.some((secret) => bytes.includes(secret));
      });
      assert.deepEqual(leaks, []);
      for (const secret of secrets) assert.ok(!seen.includes(secret));
    });
  });
});
