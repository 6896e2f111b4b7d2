// Sandboxes by the built-in controller `shim`: in our own shim, and in one that the daemon takes for somebody else's; driven by
// containerd's ctr and ours, with containers in them that share namespaces as their specs say.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { contextOf } from '../../packages/daemon/src/core/request-context.ts';
import { sandboxControllerContract } from '../../packages/daemon/src/core/sandboxes/sandbox-controller-contract.ts';
import { ProxyConnection } from '../../packages/daemon/src/plugins/proxy/proxy-connection.ts';
import { ProxySandboxController } from '../../packages/daemon/src/plugins/proxy/proxy-sandbox-controller.ts';
import { CtrSession, ctrClients } from '../lib/clients.ts';
import { bin, TestDaemon } from '../lib/daemon.ts';
import { busyboxArchive } from '../lib/images.ts';
import { endProcess, eventually, run } from '../lib/processes.ts';
import { makeTempDir, mountsBeneath } from '../lib/temp-dir.ts';

const root = process.getuid?.() === 0 ? false : 'sandboxes need root';
const image = 'x/busybox:1';
const namespace = 'pods';

describe('sandboxes of shims', { skip: root }, () => {
  const temp = makeTempDir('sandbox');
  const directory = path.join(temp.path, 'd');
  const settings = `[plugins.'io.containerd.shim.v1.manager']\n  idle_timeout = '1s'\n`;
  const daemon = new TestDaemon(directory, settings);
  const clients = ctrClients().filter(({ name, missing }) => !missing && ['our ctr', 'ctr 2.3.4'].includes(name));
  const ctr = new CtrSession(clients.at(-1)!, daemon.address, namespace);
  const ours = new CtrSession(clients[0]!, daemon.address, namespace);
  const connection = new ProxyConnection('shim', daemon.address);
  const controller = new ProxySandboxController(connection, 'shim');
  const ctx = contextOf(namespace);
  const state = path.join(daemon.state, 'io.containerd.sandbox.controller.v1.shim', namespace);
  /** Our shim under a name that is not ours: the daemon treats it as any other that serves the Sandbox API. */
  const foreign = path.join(temp.path, 'containerd-shim-other-v1');
  const runtimes = { own: 'io.containerd.runc.v2', foreign };
  /** The same behind gRPC. */
  const grpc = path.join(temp.path, 'containerd-shim-grpc-v1');

  before(async () => {
    writeFileSync(
      foreign,
      `#!/bin/sh\nGANTRY_SHIM_LINGER_MS=200\nexport GANTRY_SHIM_LINGER_MS\nexec '${bin.shim}' "$@"\n`,
      {
        mode: 0o755,
      },
    );
    const program = path.resolve(import.meta.dirname, '../lib/grpc-shim.ts');
    writeFileSync(grpc, `#!/bin/sh\nREAL_SHIM='${foreign}' exec '${process.execPath}' '${program}' "$@"\n`, {
      mode: 0o755,
    });
    const archive = await busyboxArchive(temp.path, image);
    await daemon.start();
    await ctr.ok('images', 'import', archive);
  });

  after(async () => {
    await connection.close();
    await daemon.stop();
    await temp.remove();
  });

  for (const [name, runtime] of Object.entries(runtimes))
    sandboxControllerContract(`shim, ${name}`, async () => ({
      controller,
      forgiving: true,
      sandbox: (id) => ({ id, labels: {}, runtime: { name: runtime }, sandboxer: 'shim', extensions: {} }),
      close: async () => {
        const left = readdirSync(path.dirname(state), { recursive: true }).map(String);
        assert.deepEqual(
          left.filter((name) => name.includes('/')),
          [],
        );
        assert.deepEqual(mountsBeneath(path.dirname(state)), []);
      },
    }));

  function specFile(name: string, spec: object): string {
    const file = path.join(temp.path, `${name}.json`);
    writeFileSync(file, JSON.stringify({ ociVersion: '1.0.2', ...spec }));
    return file;
  }

  /** Where others join it: what a verbose status says. */
  async function joinable(id: string): Promise<Record<string, string>> {
    const { info } = await controller.status(ctx, id, true);
    const list = JSON.parse(info['namespaces'] ?? '[]') as { type: string; path?: string }[];
    return Object.fromEntries(list.map(({ type, path: at }) => [type, at ?? '']));
  }

  const withNs = (paths: Record<string, string>, ...types: string[]) =>
    types.flatMap((type) => ['--with-ns', `${type}:${paths[type]}`]);

  const namespaceOf = (pid: number, kind: string) => readlinkSync(`/proc/${pid}/ns/${kind}`);

  async function taskPid(id: string): Promise<number> {
    const row = (await ctr.ok('tasks', 'ls')).split('\n').find((line) => line.startsWith(`${id} `));
    assert.ok(row, `no task ${id}`);
    return Number(row.split(/\s+/)[1]);
  }

  async function remove(...ids: string[]): Promise<void> {
    for (const id of ids) {
      // It exits as the task did.
      await ctr.try('tasks', 'rm', '-f', id);
      await ctr.ok('containers', 'rm', id);
    }
  }

  for (const client of clients)
    test(`${client.name}: run, ls, info, rm; each step an event`, async () => {
      const session = new CtrSession(client, daemon.address, namespace);
      const events = spawn(client.file, session.arguments(['events']), { stdio: ['ignore', 'pipe', 'ignore'] });
      let seen = '';
      events.stdout.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
      });
      try {
        await eventually('events are listened to', async () => {
          await session.ok('namespaces', 'label', namespace, 'probe=1');
          return seen.includes('/namespaces/update') || undefined;
        });
        const file = specFile('plain', { hostname: 'podhost' });
        assert.equal(await session.ok('sandboxes', 'run', file, 'plain'), 'plain\n');
        assert.match(await session.ok('sandboxes', 'ls'), /plain .*io\.containerd\.runc\.v2/);
        assert.equal(JSON.parse(await session.ok('sandboxes', 'info', 'plain')).Sandboxer, 'shim');
        const exit = controller.wait(ctx, 'plain');
        await session.ok('sandboxes', 'rm', 'plain');
        assert.equal((await exit).exitStatus, 0);
        assert.doesNotMatch(await session.ok('sandboxes', 'ls'), /plain/);
        assert.deepEqual(readdirSync(state), []);
        for (const topic of ['create', 'start', 'exit'])
          await eventually(
            `/sandboxes/${topic}`,
            () => seen.includes(`/sandboxes/${topic} {"sandbox_id":"plain"`) || undefined,
          );
      } finally {
        await endProcess(events);
      }
    });

  test('members share the namespaces that their specs name, and no others, in one shim without a further start', async () => {
    await ctr.ok('sandboxes', 'run', specFile('pinned', { hostname: 'podhost' }), 'pinned');
    const paths = await joinable('pinned');
    assert.equal((await controller.status(ctx, 'pinned')).pid, 0);
    const join = withNs(paths, 'network', 'ipc', 'uts');
    const sleeper = ['sleep', '1000'];
    await ctr.ok('run', '-d', '--sandbox', 'pinned', ...join, image, 'all', ...sleeper);
    await ctr.ok('run', '-d', '--sandbox', 'pinned', ...withNs(paths, 'network'), image, 'some', ...sleeper);
    const [all, some] = [await taskPid('all'), await taskPid('some')];
    assert.equal(namespaceOf(all, 'net'), namespaceOf(some, 'net'));
    for (const kind of ['ipc', 'uts', 'pid', 'mnt']) assert.notEqual(namespaceOf(all, kind), namespaceOf(some, kind));
    assert.notEqual(namespaceOf(all, 'net'), namespaceOf(process.pid, 'net'));
    assert.equal(await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'all', 'hostname'), 'podhost\n');
    assert.match(await ctr.ok('tasks', 'exec', '--exec-id', 'e', 'some', 'cat', '/proc/net/if_inet6'), / lo$/m);
    const shims = ['all', 'some'].map((id) => bootstrap('io.containerd.runtime.v2.task', id));
    assert.deepEqual(shims, [bootstrap('io.containerd.sandbox.controller.v1.shim', 'pinned'), shims[0]]);
    await remove('all', 'some');
    assert.equal((await controller.status(ctx, 'pinned')).state, 'SANDBOX_READY');
    await ctr.ok('sandboxes', 'rm', 'pinned');
    assert.deepEqual(mountsBeneath(state), []);
  });

  function bootstrap(plugin: string, id: string): string {
    return readFileSync(path.join(daemon.state, plugin, namespace, id, 'bootstrap.json'), 'utf8');
  }

  test('a shared pid namespace is held by a process that collects what is left to it', async () => {
    const spec = { linux: { namespaces: [{ type: 'pid' }, { type: 'ipc' }] } };
    await ctr.ok('sandboxes', 'run', specFile('pids', spec), 'pids');
    const { pid } = await controller.status(ctx, 'pids');
    const paths = await joinable('pids');
    assert.equal(paths['pid'], `/proc/${pid}/ns/pid`);
    const orphan = ['sh', '-c', '(sleep 0.2 &) ; exec sleep 1000'];
    await ctr.ok('run', '-d', '--sandbox', 'pids', ...withNs(paths, 'pid'), image, 'member', ...orphan);
    const member = await taskPid('member');
    assert.equal(namespaceOf(member, 'pid'), namespaceOf(pid, 'pid'));
    const children = () => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    await eventually('the orphan is collected', () => (children() === '' ? true : undefined));
    const exit = controller.wait(ctx, 'pids');
    await controller.stop(ctx, 'pids');
    assert.equal((await exit).exitStatus, 137);
    await eventually('the member ends with it', async () =>
      /member +\d+ +STOPPED/.test(await ctr.ok('tasks', 'ls')) ? true : undefined,
    );
    await ctr.try('tasks', 'rm', 'member');
    await ctr.ok('containers', 'rm', 'member');
    await ctr.ok('sandboxes', 'rm', 'pids');
    assert.deepEqual(readdirSync(state), []);
  });

  test('a sandbox with a process of its spec ends with it, as it says', async () => {
    const rootfs = path.join(temp.path, 'rootfs');
    await run('sh', ['-c', `mkdir -p ${rootfs}/bin ${rootfs}/proc && cp "$(command -v busybox)" ${rootfs}/bin/sh`]);
    const script = 'trap "exit 5" TERM; while :; do sleep 0.1; done';
    const spec = {
      process: { cwd: '/', user: { uid: 0, gid: 0 }, env: ['PATH=/bin'], args: ['/bin/sh', '-c', script] },
      root: { path: rootfs },
      mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
      linux: { namespaces: [{ type: 'pid' }, { type: 'mount' }] },
    };
    await ctr.ok('sandboxes', 'run', specFile('own', spec), 'own');
    assert.ok((await controller.status(ctx, 'own')).pid > 0);
    const exit = controller.wait(ctx, 'own');
    await controller.stop(ctx, 'own', 30);
    assert.equal((await exit).exitStatus, 5);
    await ctr.ok('sandboxes', 'rm', 'own');
    assert.deepEqual(readdirSync(state), []);
  });

  test('bad ones leave nothing', async () => {
    const wrong = [
      { linux: { sysctl: { 'kernel.panic': '1' } } },
      { linux: { sysctl: { 'net.ipv4./..': '1' } } },
      { linux: { namespaces: [{ type: 'user' }] } },
      { process: { cwd: '/', user: { uid: 0, gid: 0 }, args: ['/nope'] }, root: { path: temp.path } },
    ];
    for (const [index, spec] of wrong.entries()) {
      const { code } = await ctr.try('sandboxes', 'run', specFile(`bad${index}`, spec), `bad${index}`);
      assert.notEqual(code, 0);
    }
    assert.deepEqual(readdirSync(state), []);
    assert.deepEqual(mountsBeneath(state), []);
  });

  for (const [name, runtime] of Object.entries(runtimes))
    test(`${name} shim: sandboxes and members outlive the daemon`, async () => {
      const spec = { linux: { namespaces: [{ type: 'network' }, { type: 'uts' }] } };
      await ctr.ok('sandboxes', 'run', '--runtime', runtime, specFile('lasting', spec), 'lasting');
      const join = withNs(await joinable('lasting'), 'network');
      await ctr.ok('run', '-d', '--runtime', runtime, '--sandbox', 'lasting', ...join, image, 'm1', 'sleep', '1000');
      const m1 = await taskPid('m1');
      await daemon.kill();
      await daemon.start();
      assert.equal((await controller.status(ctx, 'lasting')).state, 'SANDBOX_READY');
      assert.equal(await taskPid('m1'), m1);
      await ctr.ok('run', '-d', '--runtime', runtime, '--sandbox', 'lasting', ...join, image, 'm2', 'sleep', '1000');
      assert.equal(namespaceOf(await taskPid('m2'), 'net'), namespaceOf(m1, 'net'));
      await remove('m1', 'm2');
      await ctr.ok('sandboxes', 'rm', 'lasting');
      assert.deepEqual(readdirSync(state), []);
    });

  async function shimOf(id: string): Promise<number> {
    const text = readFileSync(`/proc/${await taskPid(id)}/status`, 'utf8');
    return Number(/^PPid:\s+(\d+)/m.exec(text)?.[1]);
  }

  test('our shim killed: its sandboxes are taken over, with and without a process', async () => {
    const spec = { linux: { namespaces: [{ type: 'pid' }] } };
    await ctr.ok('sandboxes', 'run', specFile('mounted', {}), 'mounted');
    await ctr.ok('sandboxes', 'run', specFile('paused', spec), 'paused');
    const { pid } = await controller.status(ctx, 'paused');
    const join = withNs(await joinable('mounted'), 'network');
    await ctr.ok('run', '-d', '--sandbox', 'mounted', ...join, image, 'stays', 'sleep', '1000');
    const ends = controller.wait({ ...ctx, signal: new AbortController().signal }, 'paused');
    process.kill(await shimOf('stays'), 'SIGKILL');
    assert.deepEqual(
      [(await controller.status(ctx, 'mounted')).state, (await controller.status(ctx, 'paused')).pid],
      ['SANDBOX_READY', pid],
    );
    await ctr.ok('run', '-d', '--sandbox', 'mounted', ...join, image, 'later', 'sleep', '1000');
    assert.equal(namespaceOf(await taskPid('later'), 'net'), namespaceOf(await taskPid('stays'), 'net'));
    process.kill(pid, 'SIGKILL');
    // Its parent is gone: whether the kernel tells how it ended depends on its age. Never as a success.
    assert.ok([137, 255].includes((await ends).exitStatus));
    assert.equal((await controller.status(ctx, 'paused')).state, 'SANDBOX_NOTREADY');
    await remove('stays', 'later');
    await ctr.ok('sandboxes', 'rm', 'mounted', 'paused');
    assert.deepEqual(readdirSync(state), []);
    assert.deepEqual(mountsBeneath(state), []);
  });

  test('a foreign shim killed: its sandbox and its members are cleared up, and those who wait are told', async () => {
    await ctr.ok('sandboxes', 'run', '--runtime', foreign, specFile('gone', {}), 'gone');
    await ctr.ok('run', '-d', '--runtime', foreign, '--sandbox', 'gone', image, 'member', 'sleep', '1000');
    const member = await taskPid('member');
    const ends = controller.wait(ctx, 'gone');
    process.kill(await shimOf('member'), 'SIGKILL');
    assert.notEqual((await ends).exitStatus, 0);
    await eventually('all is cleared up', () =>
      !existsSync(`/proc/${member}`) && readdirSync(state).length === 0 ? true : undefined,
    );
    assert.deepEqual(mountsBeneath(state), []);
    assert.equal((await ctr.ok('tasks', 'ls')).trim().split('\n').length, 1);
    // The record is a client's to remove, as after a reboot.
    await ours.ok('sandboxes', 'rm', 'gone');
    await ctr.ok('containers', 'rm', 'member');
  });

  test('a shim that speaks gRPC', async () => {
    const sandbox = { id: 'g', labels: {}, runtime: { name: grpc }, sandboxer: 'shim', extensions: {} };
    await controller.create(ctx, sandbox);
    assert.match((await controller.start(ctx, 'g')).address, /^grpc\+unix:\/\/\//);
    assert.equal((await controller.status(ctx, 'g')).state, 'SANDBOX_READY');
    await controller.shutdown(ctx, 'g');
    assert.deepEqual(readdirSync(state), []);
  });

  test('a shim without the Sandbox API says so, and nothing is left', async () => {
    const other = '/usr/bin/containerd-shim-runc-v2';
    if (!existsSync(other)) return;
    const { stderr } = await ctr.try('sandboxes', 'run', '--runtime', other, specFile('none', {}), 'none');
    assert.match(stderr, /failed to create sandbox none/);
    assert.deepEqual(readdirSync(state), []);
  });
});
