// Checkpoints and what is restored from them, by our ctr and containerd's own, with CRIU.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client } from '../../packages/client/src/index.ts';
import { type CtrClient, CtrSession, ctrClients } from '../lib/clients.ts';
import { criuDirectory, criuUnable } from '../lib/criu.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { eventually, processesMentioning, run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? criuUnable() : 'containers need root';
const image = 'x/busybox:1';
const images = 'application/vnd.containerd.container.criu.checkpoint.criu.tar';
/** Counts in a file of its root and on its output, quickly. */
const counting = 'i=0; while :; do i=$((i+1)); echo $i > /n; echo line $i; sleep 0.05; done';

describe('checkpoint and restore', { skip }, () => {
  const temp = makeTempDir('checkpoint');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  const archive = path.join(temp.path, 'busybox.tar');
  const usual = process.env['PATH'];

  before(async () => {
    await busyboxArchive(temp.path, image);
    process.env['PATH'] = `${criuDirectory}:${usual}`;
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    process.env['PATH'] = usual;
    await eventually(
      'no process of the daemon is left',
      () => processesMentioning(daemon.directory).length === 0 || undefined,
    );
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(mounts, []);
  });

  const wanted = ctrClients().filter(({ name }) => name === 'our ctr' || name === 'ctr 2.3.4');
  for (const client of wanted) describe(client.name, { skip: client.missing ?? false }, () => clientTests(client));

  function clientTests(client: CtrClient): void {
    const namespace = client.own ? 'own' : 'theirs';
    const ctr = new CtrSession(client, daemon.address, namespace);
    let execs = 0;
    const count = async (id: string): Promise<number> =>
      Number(await ctr.ok('tasks', 'exec', '--exec-id', `count${execs++}`, id, 'cat', '/n'));
    const past = (id: string, least: number) =>
      eventually(`${id} counts past ${least}`, async () => ((await count(id)) > least ? true : undefined));

    test('a running container becomes an image, and another one goes on from there', async () => {
      await ctr.ok('images', 'import', archive);
      const log = path.join(temp.path, `log-${namespace}`);
      await ctr.ok(
        'run',
        '-d',
        '--log-uri',
        `file://${log}`,
        '--runc-binary',
        'runc',
        image,
        'first',
        'sh',
        '-c',
        counting,
      );
      await past('first', 3);
      await ctr.ok('containers', 'checkpoint', '--image', '--rw', '--task', 'first', 'x/checkpoint:1');
      const then = await count('first');
      assert.match(await ctr.ok('tasks', 'ls'), /first +\d+ +RUNNING/);
      await past('first', then);
      await ctr.ok('tasks', 'rm', '-f', 'first').catch(() => undefined);
      await ctr.ok('containers', 'rm', 'first');

      const { stdout } = await run(client.file, ctr.arguments(['images', 'ls', 'name==x/checkpoint:1']));
      const index = JSON.parse(await ctr.ok('content', 'get', /sha256:\w+/.exec(stdout)![0])) as {
        manifests: { mediaType: string }[];
        annotations: Record<string, string>;
      };
      const kinds = index.manifests.map(({ mediaType }) => mediaType);
      assert.deepEqual(kinds.map((kind) => kind.replace(/^application\/vnd\./, '')).sort(), [
        'containerd.container.checkpoint.config.v1+proto',
        'containerd.container.checkpoint.options.v1+proto',
        'containerd.container.checkpoint.runtime.options+proto',
        'containerd.container.criu.checkpoint.criu.tar',
        'oci.image.layer.v1.tar+gzip',
        'oci.image.manifest.v1+json',
      ]);
      assert.equal(index.annotations['io.containerd.checkpoint.runtime'], 'io.containerd.runc.v2');

      await ctr.ok('containers', 'restore', '--live', '--rw', 'second', 'x/checkpoint:1');
      const now = await count('second');
      assert.ok(now > 3 && now < then + 200, `counts on from before the checkpoint, not from 1: ${now}`);
      await past('second', now);
      // Without --live the same root, but a process from the beginning.
      await ctr.ok('containers', 'restore', '--rw', 'third', 'x/checkpoint:1');
      await past('third', 0);
      assert.match(await ctr.ok('tasks', 'ls'), /second +\d+ +RUNNING\s+third +\d+ +RUNNING/);
    });

    test('a task’s checkpoint gets a name of its own', async () => {
      const name = (await ctr.ok('tasks', 'checkpoint', 'second')).trim();
      assert.match(name, /^containerd\.io\/checkpoint\/second:\d\d-\d\d-\d{4}-\d\d:\d\d:\d\d$/);
      assert.match(await ctr.ok('images', 'ls', `name==${name}`), /containerd\.io\/checkpoint=true/);
      assert.match(await ctr.ok('tasks', 'ls'), /second +\d+ +RUNNING/);
    });

    test('into a directory, and the container ends by it', async () => {
      const directory = path.join(temp.path, `images-${namespace}`);
      const work = path.join(temp.path, `work-${namespace}`);
      await ctr.ok('tasks', 'checkpoint', '--exit', '--image-path', directory, '--work-path', work, 'second');
      assert.ok(readdirSync(directory).includes('inventory.img'));
      assert.match(readFileSync(path.join(work, 'dump.log'), 'utf8'), /Dumping finished successfully/);
      await eventually(
        'it has ended',
        async () => /second +\d+ +STOPPED/.test(await ctr.ok('tasks', 'ls')) || undefined,
      );
      await ctr.try('tasks', 'rm', 'second');
      assert.doesNotMatch(await ctr.ok('tasks', 'ls'), /second/);
      await ctr.ok('containers', 'rm', 'second');
    });

    test('what cannot be frozen is an error, and the container goes on', async () => {
      // A container that is not running yet.
      await ctr.ok('containers', 'create', image, 'idle', 'sleep', '1000');
      const none = await ctr.try('tasks', 'checkpoint', 'idle');
      assert.notEqual(none.code, 0);
      assert.match(none.stderr, /not found/);
      const at = await count('third');
      const refused = await ctr.try('tasks', 'checkpoint', '--image-path', '/proc/no/such', 'third');
      assert.notEqual(refused.code, 0);
      assert.match(refused.stderr, /OCI runtime checkpoint failed: .* path= .*criu-dump\.log/);
      await past('third', at);
      for (const id of ['third', 'idle']) {
        await ctr.try('tasks', 'rm', '-f', id);
        await ctr.ok('containers', 'rm', id);
      }
    });
  }

  test('a restore that nobody has started yet outlives its shim', async () => {
    const ctr = new CtrSession(wanted[0]!, daemon.address, 'shim');
    await ctr.ok('images', 'import', archive);
    await ctr.ok('run', '-d', image, 'one', 'sh', '-c', counting);
    await ctr.ok('containers', 'checkpoint', '--task', '--rw', 'one', 'x/checkpoint:2');
    await ctr.try('tasks', 'rm', '-f', 'one');
    await using client = await Client.connect({ address: daemon.address, namespace: 'shim' });
    const index = JSON.parse(
      Buffer.from(await client.content.readAll((await client.images.get('x/checkpoint:2')).target.digest)).toString(),
    ) as { manifests: { mediaType: string; digest: string; size: number }[] };
    const checkpoint = index.manifests.find(({ mediaType }) => mediaType === images)!;
    const events = client.events.subscribe(['topic~="/tasks/"']);
    const task = await client.tasks.create({
      container: 'one',
      checkpoint,
      stdio: { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe' },
    });
    assert.equal(task.pid, 0);
    assert.equal((await task.status()).state, 'created');
    const shims = processesMentioning(daemon.directory).filter(({ command }) => command.includes('gantry-shim'));
    assert.ok(shims.length > 0, 'there are shims to kill');
    for (const { pid } of shims) process.kill(pid, 'SIGKILL');
    assert.equal((await task.status()).state, 'created', 'as the next shim says');
    await task.start();
    assert.equal((await task.status()).state, 'running');
    await ctr.ok('tasks', 'exec', '--exec-id', 'look', 'one', 'cat', '/n');
    await ctr.ok('tasks', 'checkpoint', 'one');
    const seen: string[] = [];
    for await (const { topic } of events) {
      seen.push(topic);
      if (topic === '/tasks/checkpointed') break;
    }
    assert.ok(seen.includes('/tasks/start'));
    // As containerd's CRI asks: from a directory, with what was written to the root beside it, and started at once.
    const from = path.join(temp.path, 'from');
    const directory = path.join(from, 'checkpoint');
    await ctr.ok('tasks', 'checkpoint', '--exit', '--image-path', directory, 'one');
    await eventually('it has ended', async () => /one +\d+ +STOPPED/.test(await ctr.ok('tasks', 'ls')) || undefined);
    await ctr.try('tasks', 'rm', 'one');
    writeFileSync(path.join(from, 'beside'), 'from the layer');
    await run('tar', ['-czf', path.join(from, 'rootfs-diff.tar'), '-C', from, 'beside']);
    const again = await client.tasks.create({
      container: 'one',
      checkpoint: { mediaType: '', digest: '', size: 0, annotations: { RestoreFromPath: directory } },
      stdio: { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe' },
    });
    assert.ok(again.pid > 0);
    assert.equal((await again.status()).state, 'running');
    assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'beside', 'one', 'cat', '/beside'), 'from the layer');
    await ctr.try('tasks', 'rm', '-f', 'one');
    await ctr.ok('containers', 'rm', 'one');
  });

  test('without CRIU its runtime’s own words are passed on', async () => {
    const bare = new TestDaemon(path.join(temp.path, 'bare'));
    process.env['PATH'] = usual;
    await bare.start();
    try {
      const ctr = new CtrSession(wanted[0]!, bare.address, 'default');
      await ctr.ok('images', 'import', archive);
      await ctr.ok('run', '-d', image, 'one', 'sleep', '1000');
      const { code, stderr } = await ctr.try('tasks', 'checkpoint', 'one');
      assert.equal(code, 1);
      assert.match(stderr, /OCI runtime checkpoint failed: .*criu/);
      await ctr.try('tasks', 'rm', '-f', 'one');
      await ctr.ok('containers', 'rm', 'one');
    } finally {
      await bare.stop();
    }
  });
});
