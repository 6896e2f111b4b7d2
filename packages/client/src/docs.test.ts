// Runs every example of docs/client.md against a daemon: the one at GANTRY_TEST_ADDRESS, or a containerd of the system with
// root, state and socket of its own.
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { Client } from './client.ts';

const repository = path.resolve(import.meta.dirname, '../../..');

interface Example {
  readonly title: string;
  readonly needs: string | undefined;
  readonly code: string;
}

function examplesOf(markdown: string): Example[] {
  const examples: Example[] = [];
  let heading = '';
  for (const match of markdown.matchAll(/^## (.+)$|(?:<!-- needs: (\S+) -->\n)?^```ts\n([\s\S]*?)^```$/gm)) {
    if (match[1]) heading = match[1];
    else examples.push({ title: `${heading} (${examples.length + 1})`, needs: match[2], code: match[3]! });
  }
  return examples;
}

const which = (name: string): string | undefined => {
  for (const directory of ['/usr/bin', '/usr/sbin', '/bin', '/usr/local/bin'])
    if (existsSync(path.join(directory, name))) return path.join(directory, name);
  return undefined;
};

/** A registry with one image of one empty layer. */
async function startRegistry(): Promise<{ reference: string; close(): void }> {
  const blobs = new Map<string, Buffer>();
  const add = (mediaType: string, bytes: Buffer) => {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const tar = Buffer.alloc(10240);
  const layer = add('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(tar));
  const diffId = `sha256:${createHash('sha256').update(tar).digest('hex')}`;
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const image = { architecture, os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [diffId] } };
  const config = add('application/vnd.oci.image.config.v1+json', Buffer.from(JSON.stringify(image)));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const body = JSON.stringify({ schemaVersion: 2, mediaType, config, layers: [layer] });
  const manifest = add(mediaType, Buffer.from(body));
  const server = http.createServer((request, response) => {
    const name = request.url!.split('/').pop()!.split('?')[0]!;
    const digest = name === '1' ? manifest.digest : name;
    const bytes = blobs.get(digest);
    if (request.url === '/v2/' || !bytes) response.writeHead(bytes || request.url === '/v2/' ? 200 : 404).end();
    else {
      const type = digest === manifest.digest ? mediaType : 'application/octet-stream';
      response.writeHead(200, {
        'content-type': type,
        'content-length': bytes.length,
        'docker-content-digest': digest,
      });
      response.end(request.method === 'HEAD' ? undefined : bytes);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { reference: `localhost:${(server.address() as AddressInfo).port}/empty:1`, close: () => server.close() };
}

const given = process.env['GANTRY_TEST_ADDRESS'];
const containerd = which('containerd');
const busybox = which('busybox');
const skip =
  process.getuid!() !== 0
    ? 'needs root'
    : !given && (!containerd || !which('runc'))
      ? 'needs a daemon at GANTRY_TEST_ADDRESS, or containerd and runc'
      : !busybox || spawnSync('ldd', [busybox]).status === 0
        ? 'needs a static busybox'
        : false;

describe('the examples of docs/client.md', { skip }, () => {
  let directory: string;
  let daemon: ChildProcess | undefined;
  let address = given ?? '';
  let registry: Awaited<ReturnType<typeof startRegistry>>;
  let plugins: Set<string>;

  before(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-client-'));
    const rootfs = path.join(directory, 'rootfs');
    for (const name of ['bin', 'proc', 'dev', 'sys', 'run', 'etc', 'tmp'])
      mkdirSync(path.join(rootfs, name), { recursive: true });
    copyFileSync(busybox!, path.join(rootfs, 'bin/busybox'));
    for (const name of ['sh', 'sleep']) symlinkSync('busybox', path.join(rootfs, 'bin', name));
    symlinkSync(path.join(repository, 'node_modules'), path.join(directory, 'node_modules'));
    writeFileSync(path.join(directory, 'package.json'), '{"type":"module"}');
    registry = await startRegistry();
    if (!given) {
      address = path.join(directory, 'containerd.sock');
      const config = path.join(directory, 'config.toml');
      const text = `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "${address}"
[ttrpc]
address = "${address}.ttrpc"
`;
      writeFileSync(config, text);
      const log = createWriteStream(path.join(directory, 'log'));
      daemon = spawn(containerd!, ['--config', config], { stdio: ['ignore', 'pipe', 'pipe'] });
      daemon.stdout!.pipe(log, { end: false });
      daemon.stderr!.pipe(log, { end: false });
    }
    await using client = await Client.connect({ address, namespace: 'example' });
    plugins = new Set((await client.introspection.plugins()).map((plugin) => plugin.type));
  });

  after(async () => {
    registry?.close();
    if (daemon) {
      const ended = new Promise((resolve) => daemon!.once('exit', resolve));
      daemon.kill('SIGTERM');
      await ended;
    }
    // A failed run may have left mounts in here, and deleting must never go through one: then the directory stays.
    const mounted = readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${directory}/`);
    assert.equal(mounted, false, `mounts are left under ${directory}`);
    rmSync(directory, { recursive: true });
    for (const name of [
      'pids',
      'unified',
      'memory',
      'cpu',
      'cpuacct',
      'cpuset',
      'devices',
      'freezer',
      'blkio',
      'systemd',
      '',
    ])
      try {
        rmdirSync(path.join('/sys/fs/cgroup', name, 'example'));
      } catch {
        // Which of them exist depends on the machine; one that is in use is not ours to remove.
      }
  });

  for (const { title, needs, code } of examplesOf(readFileSync(path.join(repository, 'docs/client.md'), 'utf8'))) {
    it(title, { timeout: 60_000 }, async () => {
      const file = path.join(directory, `example-${createHash('sha256').update(title).digest('hex').slice(0, 8)}.ts`);
      writeFileSync(file, code);
      const env = {
        ...process.env,
        CONTAINERD_ADDRESS: address,
        ROOTFS: path.join(directory, 'rootfs'),
        REFERENCE: registry.reference,
        TMPDIR: directory,
      };
      const run = promisify(execFile)(process.execPath, [file], { env, timeout: 45_000 });
      if (needs && !plugins.has(needs))
        await assert.rejects(run, /StatusError: unknown service containerd\.services\./);
      else {
        const { stdout } = await run;
        // What an example says it prints, it prints.
        for (const [, promised] of code.matchAll(/(?:console\.log|process\.stdout\.write)\(.*\); \/\/ (.+)$/gm))
          assert.ok(stdout.includes(promised!), `${JSON.stringify(promised)} is not in ${JSON.stringify(stdout)}`);
      }
    });
  }

  it('finds examples at all', () => {
    assert.ok(examplesOf(readFileSync(path.join(repository, 'docs/client.md'), 'utf8')).length >= 10);
  });
});
