import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CtrClient, CtrSession, ctrClients, keptView } from '../lib/clients.ts';
import { TestDaemon } from '../lib/daemon.ts';
import { buildTestImages } from '../lib/images.ts';
import { endProcess, eventually, processesMentioning } from '../lib/processes.ts';
import { TestRegistry } from '../lib/registry.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const skip = process.getuid?.() === 0 ? false : 'containers need root';

describe('real clients against gantryd', { skip }, () => {
  const temp = makeTempDir('e2e');
  const daemon = new TestDaemon(path.join(temp.path, 'd'));
  let registry: TestRegistry;
  const image = { busybox: '', whiteouts: '', 'many-layers': '' };

  before(async () => {
    const layouts = await buildTestImages(path.join(temp.path, 'images'));
    registry = await TestRegistry.start(temp.path);
    for (const name of Object.keys(image) as (keyof typeof image)[]) {
      image[name] = await registry.fill(layouts[name], `test/${name}:latest`);
    }
    await daemon.start();
  });

  after(async () => {
    await daemon.stop();
    await registry?.close();
    // What a stopped daemon leaves of its own: nothing, once no container is left. Its shim goes when told.
    const left = await eventually(
      'no process of the daemon is left',
      () => (processesMentioning(daemon.directory).length === 0 ? [] : undefined),
      10_000,
    ).catch(() => processesMentioning(daemon.directory));
    const mounts = mountsBeneath(temp.path);
    await temp.remove();
    assert.deepEqual(left, []);
    assert.deepEqual(mounts, []);
  });

  for (const [index, client] of ctrClients().entries()) {
    describe(client.name, { skip: client.missing ?? false }, () => clientTests(client, `e2e-${index}`));
  }

  function clientTests(client: CtrClient, namespace: string): void {
    const ctr = new CtrSession(client, daemon.address, namespace);
    const pull = (name: string): Promise<string> => ctr.ok('images', 'pull', '--plain-http', ...client.pullFlags, name);

    test('pulls, lists and inspects images', async () => {
      for (const name of Object.values(image)) await pull(name);
      const list = await ctr.ok('images', 'ls');
      for (const name of Object.values(image)) assert.match(list, new RegExp(`^${name} +application/vnd`, 'm'));
      assert.match(list, /linux\/amd64|linux\/arm64/);
      const snapshots = (await ctr.ok('snapshots', 'ls')).trim().split('\n').slice(1);
      // One chain of 111 and one of 3 that share their lowest snapshot, which is also busybox.
      assert.equal(snapshots.length, 113);
      const check = await ctr.ok('images', 'check');
      assert.match(check, new RegExp(`${image.busybox}.*complete \\(2/2\\)`));
    });

    test('a missing image is named', async () => {
      const { code, stderr } = await ctr.try(
        'images',
        'pull',
        '--plain-http',
        ...client.pullFlags,
        `${registry.address}/none:1`,
      );
      assert.notEqual(code, 0);
      assert.match(stderr, /none:1.*not found/);
    });

    test('runs, passing output and exit code on', async () => {
      assert.equal(await ctr.ok('run', '--rm', image.busybox, 'hello', 'echo', 'hello', 'world'), 'hello world\n');
      const { code } = await ctr.try('run', '--rm', image.busybox, 'seven', 'sh', '-c', 'exit 7');
      assert.equal(code, 7);
      assert.equal((await ctr.ok('containers', 'ls', '-q')).trim(), '');
    });

    test('a program that is not in the image leaves nothing', async () => {
      const { code, stderr } = await ctr.try('run', '--rm', image.busybox, 'bad', '/nope');
      assert.notEqual(code, 0);
      assert.match(stderr, /failed to create shim task: OCI runtime create failed/);
      assert.match(stderr, /\/nope/);
      assert.equal((await ctr.ok('tasks', 'ls', '-q')).trim(), '');
      assert.equal((await ctr.ok('containers', 'ls', '-q')).trim(), '');
    });

    test('layers lie on each other: whiteouts, opaque folders, hard links, modes', async () => {
      const script = 'ls /data; ls /data/opaque; test /data/a -ef /data/b && echo linked; ls -l /data/setuid';
      const out = await ctr.ok('run', '--rm', image.whiteouts, 'layers', 'sh', '-c', script);
      assert.match(out, /^a\nb\nopaque\nsetuid\nshown\nlinked\n-rwsr-xr-x/);
    });

    test('runs an image of 111 layers', async () => {
      const out = await ctr.ok(
        'run',
        '--rm',
        image['many-layers'],
        'many',
        'sh',
        '-c',
        'ls /layers | wc -l; cat /layers/110',
      );
      assert.equal(out, '110\nlayer 110\n');
    });

    test('runs with a terminal', async () => {
      const { stdout, code } = await ctr.onTerminal(
        '',
        'run',
        '--rm',
        '-t',
        image.busybox,
        'tty',
        'sh',
        '-c',
        'tty; exit 3',
      );
      assert.match(stdout, /\/dev\/pts\/\d+/);
      assert.equal(code, 3);
    });

    test('reads what is typed until it ends', async () => {
      const { stdout } = await ctr.onTerminal(
        'echo typed-$((40+2))\nexit 4\n',
        'run',
        '--rm',
        '-t',
        image.busybox,
        'typed',
        'sh',
      );
      assert.match(stdout, /typed-42/);
    });

    test('execs, pauses, resumes, kills and deletes, and events tell of it', async () => {
      const events = spawn(client.file, ctr.arguments(['events']), { stdio: ['ignore', 'pipe', 'inherit'] });
      let seen = '';
      events.stdout.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
      });
      try {
        await eventually('events are listened to', async () => {
          await ctr.ok('namespaces', 'label', namespace, 'probe=1');
          return seen.includes('/namespaces/update') || undefined;
        });
        await ctr.ok('run', '-d', image.busybox, 'web', 'sleep', '1000');
        const row = /^web +(\d+) +RUNNING/m.exec(await ctr.ok('tasks', 'ls'));
        assert.ok(row, 'the task is listed as running');
        assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e1', 'web', 'echo', 'from exec'), 'from exec\n');
        const failed = await ctr.try('tasks', 'exec', '--exec-id', 'e2', 'web', 'sh', '-c', 'exit 9');
        assert.equal(failed.code, 9);
        const terminal = await ctr.onTerminal('', 'tasks', 'exec', '-t', '--exec-id', 'e3', 'web', 'tty');
        assert.match(terminal.stdout, /\/dev\/pts\/\d+/);
        assert.match(await ctr.ok('tasks', 'ps', 'web'), new RegExp(`^${row[1]} `, 'm'));
        assert.match(await ctr.ok('tasks', 'metrics', 'web'), /memory\.usage_in_bytes|memory\.usage /);
        await ctr.ok('tasks', 'pause', 'web');
        assert.match(await ctr.ok('tasks', 'ls'), /web +\d+ +PAUSED/);
        await ctr.ok('tasks', 'resume', 'web');
        await ctr.ok('tasks', 'kill', '-s', 'SIGKILL', 'web');
        await eventually('the task has stopped', async () =>
          (await ctr.ok('tasks', 'ls')).includes('STOPPED') ? true : undefined,
        );
        await ctr.try('tasks', 'rm', 'web');
        await ctr.ok('containers', 'rm', 'web');
        await eventually('the last event', () => (seen.includes('/containers/delete') ? true : undefined));
      } finally {
        await endProcess(events);
      }
      const topics = [
        '/snapshot/prepare',
        '/containers/create',
        '/tasks/create',
        '/tasks/start',
        '/tasks/exec-added',
        '/tasks/exec-started',
        '/tasks/paused',
        '/tasks/resumed',
        '/tasks/exit',
        '/tasks/delete',
        '/snapshot/remove',
        '/containers/delete',
      ];
      for (const topic of topics) assert.ok(seen.includes(` ${namespace} ${topic} `), `${topic} in:\n${seen}`);
      assert.ok(seen.indexOf('/tasks/start') < seen.indexOf('/tasks/exit'), 'the start is told before the exit');
      assert.match(seen, /\/tasks\/exit \{.*"container_id":"web","id":"web".*"exit_status":137/);
    });

    test('keeps what a container writes until it is removed', async () => {
      await ctr.ok('run', image.busybox, 'once', 'sh', '-c', 'echo kept > /kept');
      assert.match(await ctr.ok('snapshots', 'usage', 'once'), /once +\d/);
      const diff = await ctr.ok('snapshots', 'diff', '--media-type', 'application/vnd.oci.image.layer.v1.tar', 'once');
      assert.ok(diff.includes('kept'), 'the difference holds the file');
      await ctr.ok('containers', 'rm', 'once');
      assert.doesNotMatch(await ctr.ok('snapshots', 'ls'), /^once /m);
    });

    test('snapshots: prepare, mounts, tree, commit, view, remove', async () => {
      const parent = chainOf(await ctr.ok('snapshots', 'tree'))[0]!;
      await ctr.ok('snapshots', 'prepare', 'work', parent);
      assert.match(
        await ctr.ok('snapshots', 'mounts', '/target', 'work'),
        /^mount -t overlay overlay \/target -o .*lowerdir=/m,
      );
      assert.match(await ctr.ok('snapshots', 'info', 'work'), /"Kind": "Active"/);
      await ctr.ok('snapshots', 'commit', 'done', 'work');
      await ctr.ok('snapshots', 'label', 'done', 'containerd.io/gc.root=test');
      // ctr makes views without a lease or a label: a collection that is due may take one at once, as in containerd.
      await keptView(ctr, [], 'look', 'done');
      assert.match(await ctr.ok('snapshots', 'ls'), /^look +done +View/m);
      const refused = await ctr.try('snapshots', 'rm', 'done');
      assert.notEqual(refused.code, 0);
      assert.match(refused.stderr, /cannot remove snapshot with child/);
      await ctr.ok('snapshots', 'rm', 'look');
      await ctr.ok('snapshots', 'rm', 'done');
    });

    test('content: ls, get, fetch, ingest, label, rm', async () => {
      const list = await ctr.ok('content', 'ls');
      assert.match(list, /containerd\.io\/distribution\.source\.localhost=/);
      const digests = (await ctr.ok('content', 'ls', '-q')).trim().split('\n');
      assert.ok(digests.length > 110);
      const manifest =
        /gc\.ref\.content\.config/.exec(list) &&
        list.split('\n').find((line) => line.includes('gc.ref.content.config'));
      const digest = manifest!.split(/\s/)[0]!;
      assert.match(await ctr.ok('content', 'get', digest), /"schemaVersion":2/);
      await ctr.ok('content', 'label', digest, 'color=blue');
      assert.match(await ctr.ok('content', 'ls', 'labels.color==blue'), new RegExp(`^${digest}`, 'm'));
      await ctr.ok('content', 'label', digest, 'color=');
      assert.match(await ctr.ok('content', 'fetch', '--plain-http', image.busybox), /sha256:|elapsed|done/);
      const missing = await ctr.try('content', 'get', `sha256:${'0'.repeat(64)}`);
      assert.match(missing.stderr, /content digest sha256:0{64}: not found/);
    });

    test('exports an image and imports it under another namespace', async () => {
      const file = path.join(temp.path, `${namespace}.tar`);
      await ctr.ok('images', 'export', file, image.whiteouts);
      assert.ok(existsSync(file));
      const other = new CtrSession(client, daemon.address, `${namespace}-import`);
      assert.match(await other.ok('images', 'import', ...client.pullFlags, file), /whiteouts/);
      assert.equal(await other.ok('run', '--rm', image.whiteouts, 'imported', 'cat', '/data/opaque/shown'), 'shown');
      await other.ok('images', 'rm', '--sync', image.whiteouts);
      await eventually('the namespace is empty', async () => {
        const { code } = await other.try('namespaces', 'rm', `${namespace}-import`);
        return code === 0 ? true : undefined;
      });
      assert.ok(readFileSync(file).includes('oci-layout'));
    });

    test('tags, labels and filters images', async () => {
      await ctr.ok('images', 'tag', image.busybox, 'example.com/other:1');
      await ctr.ok('images', 'label', 'example.com/other:1', 'team=red');
      assert.match(await ctr.ok('images', 'ls', 'labels.team==red'), /^example\.com\/other:1 .*team=red/m);
      assert.doesNotMatch(await ctr.ok('images', 'ls', 'labels.team==red'), /test\/busybox/);
      assert.match(await ctr.ok('images', 'ls', '-q', 'name~=/other/'), /^example\.com\/other:1$/m);
      const bad = await ctr.try('images', 'ls', 'name~=');
      assert.notEqual(bad.code, 0);
      await ctr.ok('images', 'rm', 'example.com/other:1');
    });

    test('leases are made, listed and removed', async () => {
      const id = `lease-${namespace}`;
      await ctr.ok('leases', 'create', '--id', id, 'purpose=test');
      assert.match(await ctr.ok('leases', 'ls'), new RegExp(`^${id} .*purpose=test`, 'm'));
      await ctr.ok('leases', 'rm', '--sync', id);
      assert.doesNotMatch(await ctr.ok('leases', 'ls'), new RegExp(id));
    });

    test('a namespace is removed only when empty', async () => {
      const refused = await ctr.try('namespaces', 'rm', namespace);
      assert.match(refused.stderr, /must be empty/);
      await ctr.ok('namespaces', 'create', `${namespace}-empty`, 'a=b');
      assert.match(await ctr.ok('namespaces', 'ls'), new RegExp(`^${namespace}-empty +a=b`, 'm'));
      await ctr.ok('namespaces', 'rm', `${namespace}-empty`);
      for (const name of Object.values(image)) await ctr.ok('images', 'rm', '--sync', name);
      await eventually('the collector has emptied the namespace', async () => {
        const { code } = await ctr.try('namespaces', 'rm', namespace);
        return code === 0 ? true : undefined;
      });
      assert.doesNotMatch(await ctr.ok('namespaces', 'ls', '-q'), new RegExp(`^${namespace}$`, 'm'));
    });
  }

  test('bad requests get the right code and leave no trace', async () => {
    const client = ctrClients().find((candidate) => !candidate.missing);
    assert.ok(client, 'no client is installed');
    const bad = new CtrSession(client, daemon.address, 'BAD!');
    const { code, stderr } = await bad.try('images', 'ls');
    assert.notEqual(code, 0);
    assert.match(stderr, /identifier "BAD!" must match/);
    writeFileSync(path.join(temp.path, 'not-an-image.tar'), 'nothing');
    const session = new CtrSession(client, daemon.address, 'bad-import');
    assert.notEqual((await session.try('images', 'import', path.join(temp.path, 'not-an-image.tar'))).code, 0);
    assert.equal((await session.ok('images', 'ls', '-q')).trim(), '');
  });

  /** The names at the ends of a printed tree: snapshots without children. */
  function chainOf(tree: string): string[] {
    return [...tree.matchAll(/sha256:[0-9a-f]{64}/g)].map((match) => match[0]);
  }
});
