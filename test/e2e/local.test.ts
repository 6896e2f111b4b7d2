// What our ctr does by itself rather than by the daemon: --local, and content straight from and to registries. And what it
// shows when a registry misbehaves, by itself and through the daemon.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { TestingAuthority } from '@gantry/registry/testing-certificates.ts';
import { TestingRegistry, type TestingRegistryOptions } from '@gantry/registry/testing-registry.ts';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { eventually, run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'unpacking needs root';
const [own, , theirs] = ctrClients();

interface Manifest {
  config: { digest: string };
  layers: { digest: string; mediaType: string }[];
}

describe('our ctr by itself', { skip: skip || (own!.missing ?? false) }, () => {
  const temp = makeTempDir('local');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  let layout: string;
  let manifest: Manifest;
  const ctrIn = (namespace: string, client = own!): CtrSession => new CtrSession(client, daemon.address, namespace);

  /** A registry with one image; its reference. */
  async function fill(options: TestingRegistryOptions = {}): Promise<{ registry: TestingRegistry; reference: string }> {
    const registry = await TestingRegistry.start(options);
    const blob = (digest: string): Buffer => readFileSync(path.join(layout, 'blobs', digest.replace(':', '/')));
    for (const { digest } of [manifest.config, ...manifest.layers]) registry.addBlob('test/app', blob(digest));
    registry.addManifest('test/app', 'application/vnd.oci.image.manifest.v1+json', manifest, '1');
    return { registry, reference: `${registry.host}/test/app:1` };
  }

  const contentOf = async (ctr: CtrSession): Promise<string[]> =>
    (await ctr.ok('content', 'ls'))
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => `${line.split(/\s+/)[0]} ${line.split(/\s+/).at(-1)!.split(',').sort()}`)
      .sort();

  const nothingLeft = async (ctr: CtrSession): Promise<void> => {
    assert.equal((await ctr.ok('images', 'ls', '-q')).trim(), '');
    assert.equal((await ctr.ok('leases', 'ls', '-q')).trim(), '');
  };

  before(async () => {
    layout = (await buildTestImages(path.join(temp.path, 'images'), { few: true })).whiteouts;
    const index = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8')) as {
      manifests: { digest: string }[];
    };
    const file = path.join(layout, 'blobs', index.manifests[0]!.digest.replace(':', '/'));
    manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await temp.remove();
  });

  test('a pull leaves what a pull by the daemon leaves, and what that of containerd’s ctr leaves', async () => {
    const { registry, reference } = await fill();
    await using _ = registry;
    await ctrIn('daemon').ok('images', 'pull', '--plain-http', reference);
    const printed = await ctrIn('own').ok('images', 'pull', '--local', '--plain-http', '--print-chainid', reference);
    assert.match(printed, /^unpacking linux\/\w+ sha256:\w{64}\.\.\.\nimage chain ID: sha256:\w{64}\ndone: [\d.]+s$/m);
    assert.match(printed, /: done, elapsed: [\d.]+ s {2}total: 1\.\d MiB/);
    assert.deepEqual(await contentOf(ctrIn('own')), await contentOf(ctrIn('daemon')));
    assert.equal(await ctrIn('own').ok('snapshots', 'ls'), await ctrIn('daemon').ok('snapshots', 'ls'));
    assert.equal((await ctrIn('own').ok('leases', 'ls', '-q')).trim(), '');
    assert.match(await ctrIn('own').ok('run', '--rm', reference, 'local', 'cat', '/data/opaque/shown'), /shown/);
    if (theirs!.missing) return;
    await ctrIn('theirs', theirs).ok('images', 'pull', '--local', '--plain-http', reference);
    assert.deepEqual(await contentOf(ctrIn('own')), await contentOf(ctrIn('theirs')));
  });

  test('content is fetched without unpacking, and its documents without its layers', async () => {
    const { registry, reference } = await fill();
    await using _ = registry;
    const ctr = ctrIn('fetch');
    await ctr.ok('content', 'fetch', '--plain-http', '--metadata-only', '--label', 'a=b', reference);
    assert.equal((await contentOf(ctr)).length, 2);
    assert.match(await ctr.ok('images', 'ls'), / a=b\s*$/m);
    await ctr.ok('content', 'fetch', '--plain-http', reference);
    assert.equal((await contentOf(ctr)).length, 5);
    assert.equal((await ctr.ok('snapshots', 'ls')).trim().split('\n').length, 1);
  });

  test('objects and blobs are printed and sent without a daemon’s transfer', async () => {
    const { registry, reference } = await fill();
    await using _ = registry;
    const ctr = ctrIn('objects');
    assert.deepEqual(JSON.parse(await ctr.ok('content', 'fetch-object', '--plain-http', reference)), manifest);
    const { digest } = manifest.config;
    const config = readFileSync(path.join(layout, 'blobs', digest.replace(':', '/')), 'utf8');
    assert.equal(await ctr.ok('content', 'fetch-blob', '--plain-http', reference, digest, digest), config + config);
    const wrong = await ctr.try('content', 'fetch-blob', '--plain-http', reference, `sha256:${'0'.repeat(64)}`);
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /not found/);
    const text = 'an object';
    const object = `sha256:${createHash('sha256').update(text).digest('hex')}`;
    // Nothing refers to what is ingested like this: a collection that is due may take it before it is pushed.
    const told = await eventually('the object is pushed', async () => {
      await run(own!.file, ctr.arguments(['content', 'ingest', '--expected-digest', object, 'ref']), { input: text });
      const pushed = await ctr.try('content', 'push-object', '--plain-http', reference, object, 'text/plain');
      if (pushed.code !== 0) assert.match(pushed.stderr, /not found/);
      return pushed.code === 0 ? pushed.stdout : undefined;
    });
    assert.equal(told, `Pushed ${object} text/plain\n`);
    assert.equal(registry.blobs.get(`test/app@${object}`)?.toString(), text);
  });

  test('a push sends an image, or a manifest by its digest, and mounts what the registry has', async () => {
    const { registry, reference } = await fill();
    await using _ = registry;
    const ctr = ctrIn('push');
    await ctr.ok('images', 'pull', '--plain-http', reference);
    await ctr.ok('images', 'push', '--local', '--plain-http', `${registry.host}/other/app:2`, reference);
    assert.ok(registry.manifests.has('other/app:2'));
    const mounted = registry.requests.filter((line) => /POST .*other\/app.*[?&]from=test%2Fapp/.test(line));
    assert.equal(mounted.length, 4, 'layers and config');
    const [digest] = [...registry.manifests.keys()]
      .filter((key) => key.startsWith('test/app@'))
      .map((key) => key.slice(9));
    const args = ['images', 'push', '--manifest', digest!, '--plain-http', `${registry.host}/other/app:3`];
    const refused = await ctr.try(...args);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^ctr: "--manifest" requires "--local" flag$/m);
    await ctr.ok('images', 'push', '--local', ...args.slice(2));
    assert.ok(registry.manifests.has('other/app:3'));
  });

  test('certificates of the command line: the registry’s authority, and one’s own', async () => {
    const authority = new TestingAuthority();
    const { cert, key } = authority.issue({ commonName: 'localhost', names: ['localhost'] });
    const { registry, reference } = await fill({ tls: { cert, key, clientCa: authority.cert } });
    await using _ = registry;
    const client = authority.issue({ commonName: 'somebody' });
    const file = (name: string, text: string): string => {
      writeFileSync(path.join(temp.path, name), text);
      return path.join(temp.path, name);
    };
    // With a hosts file localhost is a host like any other: its certificate is checked.
    const hosts = path.join(temp.path, 'certs.d', `${registry.host.replace(':', '_')}_`);
    mkdirSync(hosts, { recursive: true });
    writeFileSync(path.join(hosts, 'hosts.toml'), `server = "https://${registry.host}"\n`);
    const mine = ['--tlscert', file('client.pem', client.cert), '--tlskey', file('client.key', client.key)];
    const pull = (...flags: string[]) =>
      ctrIn('tls').try('images', 'pull', '--local', '--hosts-dir', path.dirname(hosts), ...flags, reference);
    const ca = file('ca.pem', authority.cert);
    assert.equal((await pull('--tlscacert', ca, ...mine)).code, 0);
    assert.equal((await pull('--skip-verify', ...mine)).code, 0);
    for (const [flags, message] of [
      [mine, /https:\/\/localhost:\d+\/v2\/.*unknown authority/],
      [['--tlscacert', file('other.pem', new TestingAuthority().cert), ...mine], /https:\/\/localhost:\d+\/v2/],
      [['--tlscacert', ca], /https:\/\/localhost:\d+\/v2/],
      [['--tlscacert', file('bad.pem', 'x')], /failed to load TLS CAs from ".*bad\.pem": invalid data/],
      [mine.slice(0, 2), /--tlscert and --tlskey must be set together/],
    ] as const) {
      const { code, stderr } = await pull(...flags);
      assert.equal(code, 1, flags.join(' '));
      assert.match(stderr, message);
      assert.ok(!/\n +at /.test(stderr), stderr);
    }
    const { stderr } = await ctrIn('tls').try('images', 'pull', '--skip-verify', reference);
    assert.match(stderr, /^ctr: "--skip-verify" requires "--local" flag$/m);
  });

  test('archives written and read here are those of the daemon and of containerd’s ctr', async () => {
    const { registry, reference } = await fill();
    await using _ = registry;
    const ctr = ctrIn('archives');
    await ctr.ok('images', 'pull', '--plain-http', reference);
    /** Names, modes, times, sizes, and all bytes; the heads of entries may be written in more ways than one. */
    const exported = async (name: string, session: CtrSession, ...flags: string[]): Promise<string> => {
      const file = path.join(temp.path, name);
      await session.ok('images', 'export', ...flags, file, reference);
      const { stdout: list } = await run('tar', ['-tvf', file]);
      const { stdout: bytes } = await run('sh', ['-c', `tar -xOf '${file}' | sha256sum`]);
      return list + bytes;
    };
    const whole = await exported('a.tar', ctr, '--local');
    assert.equal(whole, await exported('b.tar', ctr));
    if (!theirs!.missing) assert.equal(whole, await exported('c.tar', ctrIn('archives', theirs), '--local'));
    const file = path.join(temp.path, 'a.tar');
    const other = ctrIn('imported');
    await other.ok('images', 'import', '--local', '--digests', '--discard-unpacked-layers', file);
    const names = (await other.ok('images', 'ls', '-q')).trim().split('\n');
    assert.ok(names.includes(reference) && names.some((name) => /^import-[\d-]+@sha256:/.test(name)), names.join());
    await other.ok('content', 'prune', 'references');
    const digests = (await contentOf(other)).map((line) => line.split(' ')[0]!);
    assert.ok(
      manifest.layers.every(({ digest }) => !digests.includes(digest)),
      'the collector has taken the layers',
    );
    assert.match(await other.ok('run', '--rm', reference, 'imported', 'cat', '/data/opaque/shown'), /shown/);
    const docker = path.join(temp.path, 'docker.tar');
    await run('skopeo', [
      'copy',
      '-q',
      '--insecure-policy',
      `oci-archive:${file}`,
      `docker-archive:${docker}:local/app:1`,
    ]);
    const third = ctrIn('docker');
    await third.ok('images', 'import', '--local', '--compress-blobs', '--base-name', 'docker.io/local', docker);
    assert.match(
      await third.ok('run', '--rm', 'docker.io/local/app:1', 'docker', 'cat', '/data/opaque/shown'),
      /shown/,
    );
    for (const flags of [[], ['--local']]) {
      const nothing = path.join(temp.path, 'nothing.tar');
      const { code, stderr } = await ctr.try('images', 'export', ...flags, nothing, 'x/none:1');
      assert.equal(code, 1);
      assert.match(stderr, /not found/);
      assert.ok(!existsSync(nothing), 'no half archive is left');
    }
    writeFileSync(path.join(temp.path, 'cut.tar'), readFileSync(file).subarray(0, 200_000));
    const cut = await ctrIn('cut').try('images', 'import', '--local', path.join(temp.path, 'cut.tar'));
    assert.equal(cut.code, 1);
    await nothingLeft(ctrIn('cut'));
  });

  test('an image is mounted under a lease of the target’s name, and both go together', async () => {
    const { registry, reference } = await fill();
    await using _ = registry;
    const ctr = ctrIn('mounted');
    await ctr.ok('images', 'pull', '--plain-http', reference);
    const target = path.join(temp.path, 'mounted');
    mkdirSync(target);
    const printed = await ctr.ok('images', 'mount', reference, target);
    try {
      assert.match(printed, new RegExp(`^sha256:\\w{64}\n${target}\n$`));
      assert.equal(readFileSync(path.join(target, 'data/opaque/shown'), 'utf8'), 'shown');
      assert.throws(() => writeFileSync(path.join(target, 'x'), ''), /EROFS/);
      assert.match(await ctr.ok('leases', 'ls'), new RegExp(`^${target} .*containerd.io/gc.expire=`, 'm'));
    } finally {
      await ctr.ok('images', 'unmount', '--rm', target);
    }
    assert.equal((await ctr.ok('leases', 'ls', '-q')).trim(), '');
    assert.doesNotMatch(await ctr.ok('snapshots', 'ls'), new RegExp(target));
    const failed = await ctr.try('images', 'mount', `${registry.host}/none:1`, target);
    assert.equal(failed.code, 1);
    assert.equal((await ctr.ok('leases', 'ls', '-q')).trim(), '');
  });

  test('on a terminal the picture of a pull is drawn in place and ends with time and total', async () => {
    const { registry, reference } = await fill({
      // Slowly enough that there is more than one picture.
      intercept: (request, response, { blobs }) => {
        const layer = manifest.layers[0]!.digest;
        if (request.method !== 'GET' || !request.url!.endsWith(layer)) return false;
        const bytes = blobs.get(`test/app@${layer}`)!;
        response.writeHead(200, { 'content-length': bytes.length });
        response.write(bytes.subarray(0, 300_000));
        setTimeout(() => response.end(bytes.subarray(300_000)), 1000);
        return true;
      },
    });
    await using _ = registry;
    // Others than the usual: what the store has is not fetched again.
    const ctr = new CtrSession(own!, daemon.address, 'terminal');
    await daemon.stop();
    await rm(daemon.root, { recursive: true });
    await daemon.start();
    const picturesOf = async (...flags: string[]): Promise<string[]> => {
      const { code, stdout } = await ctr.onTerminal('', 'images', 'pull', '--plain-http', ...flags, reference);
      assert.equal(code, 0, stdout);
      return stdout.split('\x1b[J').map((picture) => picture.replaceAll('\x1b', ''));
    };
    const pictures = await picturesOf('--local');
    // The first may show it already, and is drawn over nothing.
    const later = pictures.slice(1);
    const moving = later.find((picture) => /layer \(\w{12}\).*downloading.*\d KiB\/1\.0 MiB/.test(picture)) ?? '';
    assert.match(moving, /^\[\d+A\r/, 'drawn over the one before');
    assert.match(moving, /elapsed: [\d.]+ s {2}total: /);
    for (const all of [pictures, await picturesOf()])
      assert.match(all.join(''), /: done, elapsed: \d+\.\d s {2}total: /);
  });

  test('--http-dump shows the requests, of the daemon and one’s own', async () => {
    const { registry, reference } = await fill();
    await using _ = registry;
    for (const flags of [[], ['--local']]) {
      const args = ['images', 'pull', '--plain-http', '--http-dump', ...flags, reference];
      const { stderr } = await ctrIn('dump').try(...args);
      assert.match(stderr, /^HEAD http:\/\/localhost:\d+\/v2\/test\/app\/manifests\/1 200$/m);
    }
  });

  for (const flags of [['--local'], []]) {
    const way = flags.length > 0 ? 'by itself' : 'through the daemon';
    const failing = async (
      name: string,
      intercept: NonNullable<TestingRegistryOptions['intercept']>,
      ...patterns: RegExp[]
    ): Promise<void> => {
      const { registry, reference } = await fill({ intercept });
      await using _ = registry;
      const ctr = ctrIn(`${name}${flags.length}`);
      const { code, stderr } = await ctr.try('images', 'pull', '--plain-http', ...flags, reference);
      assert.equal(code, 1);
      const last = stderr.trim().split('\n').at(-1)!;
      for (const pattern of patterns) assert.match(last, pattern);
      assert.ok(!/\n +at /.test(stderr), stderr);
      await nothingLeft(ctr);
    };

    test(`${way}: a refusal names host, request, status and what to do`, async () => {
      await failing(
        'refused',
        (request, response) => {
          if (!request.url!.includes('/manifests/')) return false;
          response.writeHead(403, { 'content-type': 'application/json' });
          response.end(JSON.stringify({ errors: [{ code: 'DENIED', message: 'not for you' }] }));
          return true;
        },
        /^ctr: /,
        /GET|HEAD/,
        /localhost:\d+\/v2\/test\/app\/manifests\/1/,
        /403/,
        /check that your account may use this repository at localhost:\d+/,
      );
    });

    test(`${way}: bytes that are not what their digest says are refused and dropped`, async () => {
      const { digest } = manifest.config;
      // Bytes that no namespace has yet: what another one has is not fetched again.
      const config = JSON.parse(readFileSync(path.join(layout, 'blobs', digest.replace(':', '/')), 'utf8')) as object;
      const bytes = JSON.stringify({ ...config, author: way });
      const lying = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
      await failing(
        'lies',
        (request, response, registry) => {
          if (request.url!.endsWith('/manifests/1') && !registry.blobs.has(`test/app@${lying}`)) {
            registry.addBlob('test/app', bytes);
            const changed = { ...manifest, config: { ...manifest.config, digest: lying, size: bytes.length } };
            registry.addManifest('test/app', 'application/vnd.oci.image.manifest.v1+json', changed, '1');
          }
          if (request.method !== 'GET' || !request.url!.endsWith(lying)) return false;
          response.writeHead(200, { 'content-length': bytes.length }).end(Buffer.alloc(bytes.length, 'x'));
          return true;
        },
        new RegExp(lying),
      );
      assert.doesNotMatch(await ctrIn(`lies${flags.length}`).ok('content', 'active'), new RegExp(lying));
    });
  }
});
