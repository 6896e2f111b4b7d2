import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bin } from '../lib/daemon.ts';
import { type CommandResult, endProcess, eventually, run } from '../lib/processes.ts';
import { PullLab, program } from '../lib/pull-lab.ts';
import { registryUser, TestRegistry } from '../lib/registry.ts';

const skip = process.getuid?.() === 0 ? false : 'the daemon needs root';

function which(name: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(':')
    .map((directory) => path.join(directory, name))
    .find((file) => existsSync(file));
}

/** All that a daemon wrote, file by file. */
/** The bytes of each file beneath a directory in which a daemon works: what goes meanwhile is left out. */
function contentsOf(directory: string): Map<string, Buffer> {
  const contents = new Map<string, Buffer>();
  for (const name of readdirSync(directory, { encoding: 'utf8' })) {
    const file = path.join(directory, name);
    try {
      const stat = lstatSync(file);
      if (stat.isDirectory()) for (const [inner, bytes] of contentsOf(file)) contents.set(inner, bytes);
      else if (stat.isFile()) contents.set(file, readFileSync(file));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return contents;
}

describe('credentials', { skip }, () => {
  const lab = new PullLab('credentials');
  let closed: TestRegistry;
  const { name: user, password } = registryUser;
  const basic = Buffer.from(`${user}:${password}`).toString('base64');
  const hostsFor = (providers: string | undefined): void => {
    const directory = lab.at('certs.d', closed.address);
    rmSync(directory, { recursive: true, force: true });
    if (providers === undefined) return;
    mkdirSync(directory, { recursive: true });
    const text = `server = "http://${closed.address}"\n[credentials]\nproviders = ${providers}\n`;
    writeFileSync(path.join(directory, 'hosts.toml'), text);
  };
  const helperSays = (answer: string, more = ''): void => {
    program(lab.at('helpers/docker-credential-test'), `cat > ${lab.at('asked')}; ${more} ${answer}`);
  };
  const login = JSON.stringify({ ServerURL: 'x', Username: user, Secret: password });
  let name = '';
  let seen = '';
  let events: ReturnType<typeof spawn> | undefined;

  before(async () => {
    await lab.fill(['secret/app']);
    closed = await TestRegistry.start(lab.at(), { storage: lab.storage, basic: true });
    name = `${closed.address}/secret/app:1`;
    writeFileSync(
      lab.at('credentials.mjs'),
      `import { readFileSync } from 'node:fs';
       export async function getCredentials({ image, options }) {
         if (!image.endsWith('/secret/app')) return undefined;
         return { username: options.user, password: readFileSync(options.file, 'utf8') };
       }`,
    );
    writeFileSync(lab.at('password'), registryUser.password, { mode: 0o600 });
    await lab.startDaemon(`
[plugins.'io.containerd.transfer.v1.local']
  config_path = '${lab.at('certs.d')}'
[plugins.'io.gantry.credentials.v1.providers']
  usual = ['helper']
[plugins.'io.gantry.credentials.v1.providers'.providers.helper]
  type = 'docker-helper'
  path = '${lab.at('helpers/docker-credential-test')}'
[plugins.'io.gantry.credentials.v1.providers'.providers.kubelet]
  type = 'kubelet'
  path = '${lab.at('helpers/kubelet-provider')}'
  match_images = ['${closed.address}']
[plugins.'io.gantry.credentials.v1.providers'.providers.config]
  type = 'docker-config'
  path = '${lab.at('docker/config.json')}'
[plugins.'io.gantry.credentials.v1.providers'.providers.pass]
  type = 'docker-helper'
  path = '/usr/bin/docker-credential-pass'
  env = { GNUPGHOME = '${lab.at('gnupg')}', PASSWORD_STORE_DIR = '${lab.at('pass')}' }
[plugins.'io.gantry.credentials.v1.providers'.providers.module]
  type = 'module'
  path = '${lab.at('credentials.mjs')}'
  options = { user = '${registryUser.name}', file = '${lab.at('password')}' }
`);
    const first = lab.clients.find(({ missing }) => missing === undefined);
    if (!first) return;
    const session = lab.session(first);
    events = spawn(first.file, session.arguments(['events']), { stdio: ['ignore', 'pipe', 'ignore'] });
    events.stdout?.setEncoding('utf8').on('data', (text: string) => {
      seen += text;
    });
  });
  after(async () => {
    if (events) await endProcess(events);
    await closed?.close();
    await lab.close();
  });

  for (const client of lab.clients) {
    describe(`by ${client.name}`, { skip: client.missing ?? false }, () => {
      const refused = /authorization failed|no basic auth credentials/;

      test('without a login there is no image; the client’s own comes first', async () => {
        hostsFor('[]');
        await lab.denied(client, name, refused);
        hostsFor(undefined);
        helperSays(`echo '{"Username":"nobody","Secret":"wrong"}'`);
        await lab.denied(client, name, refused);
        await lab.allowed(client, name, '--user', `${user}:${password}`);
      });

      test('a Docker credential helper', async () => {
        hostsFor(undefined);
        helperSays(`echo '${login}'`);
        await lab.allowed(client, name, '--http-trace');
        assert.equal(readFileSync(lab.at('asked'), 'utf8'), closed.address);
        helperSays(`echo '${login}' >&2; echo '${login}'; exit 4`);
        await lab.denied(
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
        program(lab.at('helpers/kubelet-provider'), `cat > ${lab.at('asked')}; echo '${JSON.stringify(answer)}'`);
        await lab.allowed(client, name, '--http-trace');
        assert.equal(
          (JSON.parse(readFileSync(lab.at('asked'), 'utf8')) as { image: string }).image,
          name.replace(/:1$/, ''),
        );
        program(lab.at('helpers/kubelet-provider'), `echo ${password} >&2; exit 1`);
        await lab.denied(client, name, /credential provider kubelet failed .*exit status 1/);
      });

      test('config.json of Docker', async () => {
        hostsFor('["config"]');
        mkdirSync(lab.at('docker'), { recursive: true });
        const write = (auth: string): void =>
          writeFileSync(lab.at('docker/config.json'), JSON.stringify({ auths: { [closed.address]: { auth } } }), {
            mode: 0o600,
          });
        write(Buffer.from('a:b').toString('base64'));
        await lab.denied(client, name, refused);
        write(basic);
        await lab.allowed(client, name, '--http-trace');
        chmodSync(lab.at('docker/config.json'), 0o666);
        await lab.denied(client, name, /config\.json: not trusted: others may write to it \(mode 0666\)/);
        rmSync(lab.at('docker/config.json'));
      });

      test('an ES module', async () => {
        hostsFor('["module"]');
        await lab.allowed(client, name, '--http-trace');
        const session = lab.session(client);
        await session.ok('images', 'pull', '--plain-http', name);
        await session.ok('images', 'push', '--plain-http', name.replace(/:1$/, ':pushed'), name);
        await session.ok('images', 'rm', name);
      });

      test('a provider that is not configured is an error', async () => {
        hostsFor('["nobody"]');
        await lab.denied(client, name, /names credential provider "nobody", which is not configured/);
      });
    });
  }

  const missing = ['pass', 'gpg', 'docker-credential-pass'].filter((tool) => which(tool) === undefined);
  const noPass = missing.length > 0 ? `not installed: ${missing.join(', ')}` : (lab.clients[0]?.missing ?? false);

  test('ctr registry login keeps a login in pass, ctr and the daemon find it there', { skip: noPass }, async () => {
    const env = {
      GNUPGHOME: lab.at('gnupg'),
      PASSWORD_STORE_DIR: lab.at('pass'),
      DOCKER_CONFIG: lab.at('login'),
    };
    mkdirSync(env.GNUPGHOME, { mode: 0o700 });
    mkdirSync(env.DOCKER_CONFIG);
    const config = path.join(env.DOCKER_CONFIG, 'config.json');
    const ctr = (args: string[], input = ''): Promise<CommandResult> =>
      run(bin.ctr, ['-a', lab.daemon.address, '-n', 'login', ...args], { env, input, mayFail: true });
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
      // The client asks pass and answers the lab.daemon.
      hostsFor('[]');
      const pulled = await ctr(['images', 'pull', '--plain-http', name]);
      assert.equal(pulled.code, 0, pulled.stderr);
      // The daemon asks pass itself.
      hostsFor('["pass"]');
      await lab.allowed(lab.clients.find(({ missing: why }) => why === undefined)!, name);
      const out = await ctr(['registry', 'logout', closed.address]);
      assert.equal(out.stdout, `Removed the login of ${closed.address}\n`);
      assert.equal((await ctr(['registry', 'logout', closed.address])).stdout, `Not logged in to ${closed.address}\n`);
      hostsFor('[]');
      assert.equal((await ctr(['images', 'pull', '--plain-http', name])).code, 1);
    } finally {
      await run('gpgconf', ['--kill', 'all'], { env, mayFail: true });
    }
  });

  test('ctr registry login asks at the terminal, and does not show the password', async () => {
    const words = [bin.ctr, 'registry', 'login', '--plain-http', closed.address].map((word) => `'${word}'`).join(' ');
    const child = spawn('script', ['-qec', words, '/dev/null'], {
      env: { ...process.env, DOCKER_CONFIG: lab.at('asked-login') },
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
    const env = { DOCKER_CONFIG: lab.at('fresh') };
    const args = ['registry', 'login', '--plain-http', '-u', user, '--password-stdin', closed.address];
    const { stdout, stderr } = await run(bin.ctr, args, { env, input: password });
    assert.equal(stdout, 'Login Succeeded\n');
    assert.match(stderr, /the login is kept unencrypted in .*config\.json/);
    const file = path.join(env.DOCKER_CONFIG, 'config.json');
    assert.equal(lstatSync(file).mode & 0o777, 0o600);
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), { auths: { [closed.address]: { auth: basic } } });
    // docker-registry and skopeo read what was written as Docker's own.
    await run('skopeo', ['inspect', '--tls-verify=false', '--authfile', file, `docker://${name}`]);
  });

  test('no secret is in anything that the daemon wrote, sent or was configured with', async () => {
    await eventually('events came', () => (seen.includes('/images/create') ? true : undefined));
    assert.match(lab.daemon.log(), /msg="credentials found"/);
    assert.match(lab.daemon.log(), /msg="credential provider failed"/);
    const secrets = [password, basic, Buffer.from(password).toString('base64')];
    const contents = contentsOf(lab.daemon.directory);
    assert.ok(contents.has(lab.daemon.logFile));
    const leaks = [...contents].filter(([, bytes]) => secrets.some((secret) => bytes.includes(secret)));
    assert.deepEqual(
      leaks.map(([file]) => file),
      [],
    );
    for (const secret of secrets) assert.ok(!seen.includes(secret));
  });
});
