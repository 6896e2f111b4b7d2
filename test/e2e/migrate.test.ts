// What containerd wrote, read from its files: the same as it answered while it ran, and nothing of it changed.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  cpSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Code, jsonAny } from '@gantry/api';
import { Client, type Lease } from '@gantry/client';
import { BoltFile, type NamespaceRecord, readMetadata, readSnapshotterMetadata } from '@gantry/migrate';
import { containerd2, TestContainerd } from '../lib/containerd.ts';
import { bin } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { run } from '../lib/processes.ts';
import { makeTempDir } from '../lib/temp-dir.ts';

const needsRoot = process.getuid?.() === 0 ? false : 'containerd needs root';

/** Names, modes, times of change and bytes of all that is under a folder. */
function fingerprint(folder: string): string {
  const hash = createHash('sha256');
  for (const entry of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    const file = path.join(folder, entry);
    const stat = lstatSync(file, { bigint: true });
    hash.update(`${entry} ${stat.mode} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.size}\n`);
    if (stat.isFile()) hash.update(readFileSync(file));
    if (stat.isSymbolicLink()) hash.update(readlinkSync(file));
  }
  return hash.digest('hex');
}

async function all<T>(things: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const thing of things) list.push(thing);
  return list;
}

/** Everything a daemon answers about a namespace, in the form in which the files are read. */
async function ask(client: Client, { sandboxes }: { sandboxes: boolean }): Promise<NamespaceRecord> {
  const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1);
  const { name, labels } = await client.namespaces.get(client.namespace);
  const content = await all(client.content.list());
  const snapshots = await all(client.snapshots('overlayfs').list());
  const leases = await client.leases.list();
  const resources = await Promise.all(leases.map((lease: Lease) => lease.resources()));
  return {
    name,
    labels,
    images: (await client.images.list()).map((image) => ({
      ...image,
      target: { annotations: {}, ...image.target, size: BigInt(image.target.size) },
    })),
    containers: await client.containers.list(),
    // containerd leaves the time of change out of its answer.
    content: content.map(({ updatedAt: _, ...blob }) => ({ ...blob, size: BigInt(blob.size) })),
    ingests: [],
    snapshots: snapshots.map(({ name: key, parent, labels, createdAt, updatedAt }) => ({
      snapshotter: 'overlayfs',
      key,
      parent,
      labels,
      createdAt,
      updatedAt,
    })),
    leases: leases.map(({ id, createdAt, labels }, index) => ({
      id,
      createdAt,
      labels,
      resources: resources[index]!.sort(byId),
    })),
    sandboxes: sandboxes ? await client.sandboxes.list() : [],
  } as unknown as NamespaceRecord;
}

/** What is read, without what no API tells. */
function comparable(record: NamespaceRecord): unknown {
  return {
    ...record,
    content: record.content.map(({ updatedAt: _, ...rest }) => rest),
    snapshots: record.snapshots.map(({ backendName: _, children: __, ...rest }) => rest),
    leases: record.leases.map((lease) => ({
      ...lease,
      resources: [...lease.resources].sort((a, b) => (a.id < b.id ? -1 : 1)),
    })),
  };
}

for (const { name, program, version, sandboxes } of [
  { name: 'containerd 1.6', program: '/usr/bin/containerd', version: 3, sandboxes: false },
  { name: 'containerd 2.3.4', program: containerd2, version: 4, sandboxes: true },
]) {
  describe(`what ${name} leaves`, { skip: needsRoot || TestContainerd.missing(program) }, () => {
    const temp = makeTempDir('migrate');
    const containerd = new TestContainerd(path.join(temp.path, 'c'), program);
    const root = path.join(containerd.directory, 'root');
    const metadataFile = path.join(root, 'io.containerd.metadata.v1.bolt/meta.db');
    const snapshotterFile = path.join(root, 'io.containerd.snapshotter.v1.overlayfs/metadata.db');
    const answers = new Map<string, NamespaceRecord>();
    const image = 'docker.io/test/whiteouts:1';
    /** Of this run alone: containerd's runc shim keeps containers of all daemons in one place. */
    const running = `runs-${process.pid}-${version}`;
    let pid = '';
    const ctr = (...args: string[]) => run('/usr/bin/ctr', ['-a', containerd.address, ...args]);
    const config = path.join(temp.path, 'empty.toml');
    const dryRun = (from = root) =>
      run(
        bin.gantryd,
        [
          'migrate',
          '--from-containerd',
          '--dry-run',
          '--config',
          config,
          '--root',
          from,
          '--state',
          `${containerd.directory}/state`,
        ],
        { mayFail: true },
      );

    before(async () => {
      const { whiteouts } = await buildTestImages(temp.path, { few: true });
      await run('tar', ['-C', whiteouts, '-cf', `${whiteouts}.tar`, '.']);
      writeFileSync(config, 'version = 2\n');
      await containerd.start();
      await ctr('images', 'import', '--index-name', image, `${whiteouts}.tar`);
      await ctr('containers', 'create', '--label', 'a=b', '--env', 'X=1', image, 'box', 'sleep', '1000');
      await ctr('run', '--detach', image, running, 'sleep', '1000');
      pid = (await ctr('tasks', 'ls')).stdout.match(new RegExp(`${running}\\s+(\\d+)`))![1]!;
      await using client = await Client.connect({ address: containerd.address });
      await fill(client);
      for (const one of await client.namespaces.list())
        answers.set(one.name, await ask(client.inNamespace(one.name), { sandboxes }));
    });
    after(async () => {
      await containerd.stop();
      await containerd.start();
      try {
        await run('/usr/bin/ctr', ['-a', containerd.address, 'tasks', 'delete', '--force', running], { mayFail: true });
      } finally {
        await containerd.stop();
      }
      await temp.remove();
    });

    /** Enough for trees of several levels, values longer than a page, every field, and names beyond ASCII. */
    async function fill(client: Client): Promise<void> {
      const lease = await client.leases.create({ id: 'keeps', labels: { why: 'a test' }, expireAfter: 3600 });
      const [blob] = await all(client.content.list());
      await lease.add({ type: 'content', id: blob!.digest });
      await lease.add({ type: 'snapshots/overlayfs', id: 'box' });
      await client.withLease(lease).snapshots('overlayfs').prepare('written', '', { 'a label': 'ünïcode' });
      await client.namespaces.create('other', { team: 'x', long: 'y'.repeat(3000) });
      const other = client.inNamespace('other');
      await other.containers.create({
        id: 'with-everything',
        labels: { k: 'v' },
        spec: jsonAny(
          'types.containerd.io/opencontainers/runtime-spec/1/Spec',
          JSON.stringify({ pad: 'z'.repeat(40_000) }),
        ),
        runtime: { name: 'io.containerd.runc.v2', options: jsonAny('some.options', '{"a":1}') },
        extensions: { one: jsonAny('an.extension', '{}'), two: jsonAny('another', '[1]') },
        snapshotter: 'native',
        snapshotKey: 'none',
        ...(sandboxes ? { sandbox: 'pod' } : {}),
      });
      for (let from = 0; from < 200; from += 20)
        await Promise.all(
          Array.from({ length: 20 }, (_, index) =>
            other.containers.create({ id: `many-${from + index}`, spec: jsonAny('a.spec', `{"n":${index}}`) }),
          ),
        );
      if (!sandboxes) return;
      for (const namespace of [other, client.inNamespace('sandboxes-only')])
        await namespace.sandboxes.create({
          id: 'pod',
          labels: { s: 't' },
          sandboxer: 'shim',
          runtime: { name: 'io.containerd.runc.v2', options: jsonAny('some.options', '{"b":2}') },
          spec: jsonAny('a.spec', '{}'),
          extensions: { ext: jsonAny('an.extension', '{}') },
        });
    }

    test('while it runs its metadata are refused at once', async () => {
      assert.throws(() => new BoltFile(metadataFile), { code: Code.FailedPrecondition, message: /in use/ });
      const { code, stdout, stderr } = await dryRun();
      assert.deepEqual([code, stdout], [1, '']);
      assert.match(
        stderr,
        /^gantryd: .*meta\.db: in use: a process has it open for writing: containerd runs \(process \d+\); stop it first\n$/,
      );
    });

    describe('once it is stopped', () => {
      let stopped = '';
      before(async () => {
        await containerd.stop();
        stopped = fingerprint(root);
      });

      test('its metadata say what it answered', () => {
        using file = new BoltFile(metadataFile);
        const metadata = readMetadata(file);
        assert.equal(metadata.version, version);
        const found = new Map(metadata.namespaces.map((one) => [one.name, one]));
        for (const [name, answer] of answers) {
          const { containers, ...rest } = comparable(found.get(name)!) as NamespaceRecord;
          const { containers: answered, ...others } = answer;
          assert.deepEqual(rest, others);
          assert.deepEqual(
            new Map(containers.map((one) => [one.id, one])),
            new Map(answered.map((one) => [one.id, one])),
          );
        }
        assert.equal(found.get('other')!.containers.length, 201);
        assert.equal(
          found.get('default')!.images.some((one) => one.name === image),
          true,
        );
        assert.equal(found.get('other')!.sandboxes.length, sandboxes ? 1 : 0);
        if (sandboxes) assert.equal(found.get('sandboxes-only')!.sandboxes[0]!.id, 'pod');
      });

      test('each snapshot is found in its snapshotter, with its directory', () => {
        using file = new BoltFile(metadataFile);
        using inner = new BoltFile(snapshotterFile);
        const stored = readSnapshotterMetadata(inner);
        const { snapshots } = readMetadata(file).namespaces.find((one) => one.name === 'default')!;
        const kinds = new Map<string, string>();
        for (const { key, backendName, parent, children } of snapshots) {
          const found = stored.get(backendName);
          assert.ok(found, backendName);
          assert.ok(lstatSync(path.join(path.dirname(snapshotterFile), 'snapshots', String(found.id))).isDirectory());
          kinds.set(key, found.kind);
          const above = snapshots.find((one) => one.key === parent);
          assert.equal(found.parent, above?.backendName ?? '');
          if (above) assert.ok(above.children.includes(key));
          for (const child of children) assert.equal(snapshots.find((one) => one.key === child)?.parent, key);
        }
        assert.equal(kinds.get('box'), 'active');
        assert.equal([...kinds.values()].filter((kind) => kind === 'committed').length, 3);
      });

      test('gantryd migrate --dry-run reports it', async () => {
        const { code, stdout, stderr } = await dryRun();
        assert.deepEqual([code, stderr], [0, '']);
        assert.match(stdout, new RegExp(`^root: +${root} \\(metadata of schema version ${version}\\)\n`));
        assert.match(stdout, /^default +2 +2 +1 +6 +\d+ +6 +1 +0$/m);
        assert.match(stdout, new RegExp(`^other +0 +201 +0 +0 +0 +0 +0 +${sandboxes ? 1 : 0}$`, 'm'));
        assert.match(stdout, /^overlayfs +3 +3 +0 +4 +2$/m);
        assert.match(stdout, new RegExp(`^default +${running} +${pid}$`, 'm'));
        assert.match(stdout, /namespace other: container with-everything: its snapshot none of native is not there\n$/);
      });

      test('gantryd migrate --dry-run tells what is broken', async () => {
        const copy = path.join(temp.path, 'copy');
        cpSync(root, copy, { recursive: true, verbatimSymlinks: true });
        const [lost, short] = answers.get('default')!.content.map(({ digest }) => digest);
        const blob = (digest: string) =>
          path.join(copy, 'io.containerd.content.v1.content/blobs', digest.replace(':', '/'));
        rmSync(blob(lost!));
        truncateSync(blob(short!), 7);
        rmSync(path.join(copy, 'io.containerd.snapshotter.v1.overlayfs/snapshots/1'), { recursive: true });
        const { code, stdout } = await dryRun(copy);
        assert.equal(code, 0);
        assert.match(stdout, new RegExp(`namespace default: blob ${lost}: its file is missing\n`));
        assert.match(stdout, new RegExp(`namespace default: blob ${short}: its file has 7 bytes, not \\d+\n`));
        assert.match(stdout, /namespace default: snapshot sha256:\w+ of overlayfs: its directory is missing\n/);
        truncateSync(path.join(copy, 'io.containerd.metadata.v1.bolt/meta.db'), 40_000);
        assert.match((await dryRun(copy)).stderr, /^gantryd: .*not a sound bbolt file: .* cut off\n$/);
      });

      test('nothing under its root has changed, and it starts again', async () => {
        assert.equal(fingerprint(root), stopped);
        await containerd.start();
        await using client = await Client.connect({ address: containerd.address });
        assert.equal((await client.inNamespace('other').containers.list()).length, 201);
      });
    });
  });
}

test('gantryd migrate says what it cannot do', async () => {
  const stderr = async (...args: string[]) => (await run(bin.gantryd, ['migrate', ...args], { mayFail: true })).stderr;
  assert.match(await stderr('--dry-run'), /--from-containerd/);
  assert.match(await stderr('--from-containerd', '--dry-run', '--back'), /--back and --dry-run do not go together/);
  assert.match(await stderr('--from-containerd', '--dry-run', '--format', 'xml'), /--format is text or json/);
  const none = ['--from-containerd', '--dry-run', '--root', '/nowhere', '--state', '/nowhere'];
  assert.match(await stderr(...none), /meta\.db: no such file/);
  assert.match(await stderr(...none, '--config', '/nowhere/config.toml'), /failed to load configuration/);
});
