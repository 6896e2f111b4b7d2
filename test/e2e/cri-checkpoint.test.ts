// Containers of pods frozen into archives by crictl, and made again from them, with CRIU.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CriLab } from '../lib/cri-lab.ts';
import { criuDirectory, criuUnable } from '../lib/criu.ts';
import { buildImage } from '../lib/images.ts';
import { eventually, run } from '../lib/processes.ts';
import type { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const counting = 'i=0; while :; do i=$((i+1)); echo $i > /n; echo line $i; sleep 0.05; done';

/** As the kubelet asks: in a pid namespace of the pod's the number of its process may be another's by then. */
const ownPids = { linux: { security_context: { namespace_options: { pid: 1 } } } };

interface Inspect {
  status: { state: string; annotations: Record<string, string>; image: { image: string }; logPath: string };
}

/** Gives the one manifest of a layout annotations. */
function annotate(layout: string, annotations: Record<string, string>): void {
  const read = (file: string) => JSON.parse(readFileSync(path.join(layout, file), 'utf8'));
  const index = read('index.json') as { manifests: { digest: string; size: number }[] };
  const [entry] = index.manifests;
  const manifest = { ...read(`blobs/sha256/${entry!.digest.slice(7)}`), annotations };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const hex = createHash('sha256').update(bytes).digest('hex');
  writeFileSync(path.join(layout, 'blobs/sha256', hex), bytes);
  Object.assign(entry!, { digest: `sha256:${hex}`, size: bytes.length });
  writeFileSync(path.join(layout, 'index.json'), JSON.stringify(index));
}

describe('checkpoints of containers in pods', { skip: CriLab.missing() || criuUnable() }, () => {
  const temp = makeTempDir('cri-checkpoint');
  const lab = new CriLab(
    temp.path,
    { bridge: 'gantrycri7', subnet: '10.207.0.0/24' },
    'enable_experimental_restore_via_create = true\n',
  );
  const usual = process.env['PATH'];
  const archive = path.join(temp.path, 'one.tar');
  const unpacked = path.join(temp.path, 'unpacked');
  let registry: TestRegistry;
  let podId = '';
  let pod = '';

  before(async () => {
    process.env['PATH'] = `${criuDirectory}:${usual}`;
    await lab.start(async (started) => {
      registry = started;
      await lab.fill(started);
    });
    await lab.ok('pull', 'busybox:1');
    pod = lab.pod('frozen');
    podId = await lab.ok('runp', pod);
  });
  after(async () => {
    process.env['PATH'] = usual;
    await lab.ok('rmp', '-a', '-f').catch(() => undefined);
    await lab.close();
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  const count = async (id: string): Promise<number> => Number(await lab.ok('exec', '-s', id, 'cat', '/n'));
  const past = (id: string, least: number) =>
    eventually(`${id} counts past ${least}`, async () => ((await count(id)) > least ? true : undefined), 60_000);
  const create = (name: string, image: string, more: object = {}) =>
    lab.crictl(
      ['create', podId, lab.container(name, ['sh', '-c', 'exit 9'], { image: { image }, ...ownPids, ...more }), pod],
      {
        mayFail: true,
      },
    );

  test('a running container goes into an archive with what containerd puts there, and goes on', async () => {
    const config = lab.container('one', ['sh', '-c', counting], { annotations: { kept: 'yes' }, ...ownPids });
    const one = await lab.ok('create', podId, config, pod);
    await lab.ok('start', one);
    await past(one, 3);
    await lab.ok('checkpoint', `--export=${archive}`, one);
    await past(one, await count(one));
    mkdirSync(unpacked);
    await run('tar', ['-xf', archive, '-C', unpacked]);
    const names = readdirSync(unpacked).sort();
    for (const name of [
      'checkpoint',
      'config.dump',
      'container.log',
      'dump.log',
      'rootfs-diff.tar',
      'spec.dump',
      'stats-dump',
      'status',
      'status.dump',
    ])
      assert.ok(names.includes(name), `${name} in ${names}`);
    assert.ok(existsSync(path.join(unpacked, 'checkpoint/inventory.img')));
    const dump = JSON.parse(readFileSync(path.join(unpacked, 'config.dump'), 'utf8')) as Record<string, string>;
    assert.deepEqual([dump['id'], dump['runtime']], [one, 'io.containerd.runc.v2']);
    assert.match(dump['rootfsImageRef']!, /^docker\.io\/library\/busybox@sha256:/);
    assert.deepEqual(
      readdirSync(temp.path).filter((name) => name.startsWith('.one')),
      [],
    );
    assert.deepEqual(
      readdirSync(`${lab.daemon.root}/io.containerd.grpc.v1.cri/containers/${one}`).filter((name) =>
        name.startsWith('ctrd'),
      ),
      [],
    );
    await lab.ok('rm', '-f', one);
  });

  test('a container made from the archive goes on from there, with its root, log and annotations', async () => {
    const { code, stdout, stderr } = await create('one', archive);
    assert.equal(code, 0, stderr);
    const two = stdout.trim();
    const found = await lab.json<Inspect>('inspect', two);
    assert.equal(found.status.annotations['kept'], 'yes');
    assert.equal(found.status.annotations['restored'], 'true');
    assert.equal(found.status.image.image, 'docker.io/library/busybox:1');
    // A daemon that is killed meanwhile still knows.
    await lab.daemon.kill();
    await lab.daemon.start();
    await lab.ok('start', two);
    const at = await count(two);
    assert.ok(at > 3, `counts on, not from the beginning: ${at}`);
    await past(two, at);
    const lines = readFileSync(found.status.logPath, 'utf8').trimEnd().split('\n');
    assert.match(lines[0]!, / stdout F line 1$/);
    await eventually(
      'the log goes on',
      () => {
        const text = readFileSync(found.status.logPath, 'utf8');
        return new RegExp(`line ${at + 1}$`, 'm').test(text) || undefined;
      },
      60_000,
    );
    const directory = `${lab.daemon.root}/io.containerd.grpc.v1.cri/containers/${two}`;
    assert.ok(!existsSync(`${directory}/ctrd-restore`));
    await lab.ok('stop', '-t', '0', two);
    assert.equal((await lab.json<Inspect>('inspect', two)).status.state, 'CONTAINER_EXITED');
    await lab.ok('rm', two);
    const warned = (await run(path.resolve('bin/ctr'), ['-a', lab.daemon.address, 'deprecations', 'list'])).stdout;
    assert.match(warned, /cri-create-container-checkpoint-restore/);
  });

  test('an image that holds a checkpoint, by its annotation, is one too', async () => {
    const layout = path.join(temp.path, 'layouts/frozen');
    await buildImage(layout, [(root) => cpSync(unpacked, root, { recursive: true })], {});
    annotate(layout, { 'org.criu.checkpoint.container.name': 'one' });
    await registry.fill(layout, 'library/frozen:1');
    await lab.ok('pull', 'frozen:1');
    const { code, stdout, stderr } = await create('three', 'frozen:1');
    assert.equal(code, 0, stderr);
    await lab.ok('start', stdout.trim());
    assert.ok((await count(stdout.trim())) > 3);
    await lab.ok('rm', '-f', stdout.trim());
  });

  test('what is no checkpoint makes nothing', async () => {
    const bad = path.join(temp.path, 'bad.tar');
    writeFileSync(bad, 'no tar');
    for (const file of [bad, temp.path]) assert.notEqual((await create('bad', file)).code, 0);
    const tree = path.join(temp.path, 'tree');
    mkdirSync(tree);
    for (const name of ['config.dump', 'spec.dump', 'status.dump']) writeFileSync(path.join(tree, name), '{}');
    symlinkSync('/etc', path.join(tree, 'checkpoint'));
    await run('tar', ['-cf', bad, '-C', tree, '.']);
    assert.match((await create('bad', bad)).stderr, /checkpoint is not a regular file or directory/);
    assert.equal(await lab.ok('ps', '-a', '-q', '--name', 'bad'), '');
  });
});
