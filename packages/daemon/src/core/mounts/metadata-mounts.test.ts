import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { loopHandler, type Mount, type MountHandler, mountAll, unmountAll, unmountRecursive } from '@gantry/mount';
import { readMountInfo } from '@gantry/sys';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf } from '../request-context.ts';
import { MetadataMounts } from './metadata-mounts.ts';
import { withActivation } from './with-activation.ts';

const skip = process.getuid?.() === 0 ? false : 'mounting needs root';
const withCode = (code: Code, message?: RegExp) => (reason: unknown) => {
  assert.ok(hasCode(reason, code), `expected code ${code}, got ${reason}`);
  if (message) assert.match((reason as Error).message, message);
  return true;
};

describe('mount manager', { skip }, () => {
  const ctx = contextOf('ns');
  let meta: TestingMetadata;
  let root: string;
  let mounts: MetadataMounts;
  /** A type that nobody else knows: a tmpfs with a file that tells its source. */
  const custom: MountHandler = {
    async mount(mount, mountPoint) {
      mkdirSync(mountPoint);
      await mountAll([{ type: 'tmpfs', source: 'tmpfs', options: [] }], mountPoint);
      writeFileSync(path.join(mountPoint, 'source'), mount.source);
      return { mount, mountPoint, mountedAt: { seconds: 1n, nanos: 2 } };
    },
    unmount: (mountPoint) => unmountAll(mountPoint),
    isMounted: async (mountPoint, points) => points.has(mountPoint),
  };
  const open = () =>
    MetadataMounts.open({
      store: meta.store,
      namespaces: meta.namespaces,
      handlers: new Map([
        ['custom', custom],
        ['loop', loopHandler],
      ]),
      targets: at('t'),
      roots: [at('root')],
      log: meta.log,
      mutated: (deletion) => meta.gc.mutated(deletion),
    });
  const at = (name: string) => path.join(root, name);
  const held = () => readMountInfo().filter(({ mountPoint }) => mountPoint.startsWith(`${at('t')}/`)).length;
  const one: Mount[] = [{ type: 'custom', source: 'one', options: [] }];

  beforeEach(async () => {
    meta = await TestingMetadata.open();
    root = mkdtempSync(path.join(tmpdir(), 'gantry-mounts-'));
    mkdirSync(at('root'));
    mounts = await open();
    meta.sweepers.push(() => mounts.sweep());
  });
  afterEach(async () => {
    await unmountRecursive(root);
    await meta.close();
    rmSync(root, { recursive: true });
  });

  it('has nothing to do with plain mounts', async () => {
    const plain: Mount[] = [{ type: 'bind', source: at('root'), options: ['rbind'] }];
    await assert.rejects(mounts.activate(ctx, 'a', plain), withCode(Code.Unimplemented));
    await assert.rejects(mounts.activate(ctx, 'a', one, { allowMountTypes: ['custom'] }), withCode(Code.Unimplemented));
    assert.deepEqual(await mounts.list(ctx), []);
  });

  it('performs what has a handler, fills templates, and leaves the rest', async () => {
    const wanted: Mount[] = [
      { type: 'custom', source: 'one', options: [] },
      { type: 'custom', source: 'two', options: [] },
      {
        type: 'format/mkdir/overlay',
        source: 'overlay',
        options: [
          'X-containerd.mkdir.path={{ mount 0 }}/upper:0751:3:4',
          'X-containerd.mkdir.path={{mount 0}}/work',
          'lowerdir={{ overlay 1 0 }}:{{ overlay 0 1 }}',
          'upperdir={{ mount 0 }}/upper',
          'comment={{- source 1 -}} / {{ target 0 }}',
        ],
      },
    ];
    const { active, system } = await mounts.activate(ctx, 'a', wanted, { labels: { x: 'y' } });
    const [first, second] = active.map(({ mountPoint }) => mountPoint);
    assert.deepEqual(system, [
      {
        type: 'overlay',
        source: 'overlay',
        options: [`lowerdir=${second}:${first}:${first}:${second}`, `upperdir=${first}/upper`, 'comment=two/ '],
      },
    ]);
    const upper = statSync(`${first}/upper`);
    assert.deepEqual([upper.mode & 0o777, upper.uid, upper.gid], [0o751, 3, 4]);
    assert.equal(statSync(`${first}/work`).mode & 0o777, 0o700);
    assert.equal(readFileSync(`${second}/source`, 'utf8'), 'two');
    await assert.rejects(mounts.activate(ctx, 'a', one), withCode(Code.AlreadyExists, /mount "a": already exists/));
    const info = await mounts.info(ctx, 'a');
    assert.deepEqual([info.name, info.labels, info.system, info.active.length], ['a', { x: 'y' }, system, 2]);
    assert.deepEqual(
      (await mounts.list(ctx, ['labels.x==y'])).map(({ name }) => name),
      ['a'],
    );
    assert.deepEqual(await mounts.list(ctx, ['labels.x==z']), []);
    assert.deepEqual(await mounts.list(contextOf('other')), []);
    await mounts.deactivate(ctx, 'a');
    assert.equal(held(), 0);
    assert.deepEqual(readdirSync(at('t')), []);
    await assert.rejects(mounts.info(ctx, 'a'), withCode(Code.NotFound));
    await assert.rejects(mounts.deactivate(ctx, 'a'), withCode(Code.NotFound));
  });

  it('performs all for temporary use, and leaves one bind mount', async () => {
    const wanted: Mount[] = [...one, { type: 'format/bind', source: '{{ mount 0 }}', options: ['rbind', 'ro'] }];
    const { active, system } = await mounts.activate(ctx, 'a', wanted, { temporary: true });
    assert.equal(active.length, 2);
    assert.deepEqual(system, [{ type: 'bind', source: active[1]!.mountPoint, target: '', options: ['rbind'] }]);
    assert.equal(readFileSync(path.join(active[1]!.mountPoint, 'source'), 'utf8'), 'one');
  });

  it('what a runtime performs itself is left to it, unless a later mount needs it', async () => {
    const wanted: Mount[] = [...one, { type: 'format/bind', source: '{{ mount 0 }}', options: ['rbind'] }];
    await assert.rejects(
      mounts.activate(ctx, 'a', wanted, { allowMountTypes: ['custom', 'format/*'] }),
      withCode(Code.Unimplemented),
    );
    const { active } = await mounts.activate(ctx, 'a', wanted, { allowMountTypes: ['custom'] });
    assert.equal(active.length, 1);
  });

  it('makes filesystems and mounts them through loop devices', async (t) => {
    const options = ['X-containerd.mkfs.size=4MiB', 'X-containerd.mkfs.fs=ext4', 'loop'];
    const wanted: Mount[] = [
      { type: 'mkfs/loop', source: at('root/disk.img'), options: options.slice(0, 2) },
      { type: 'mkfs/ext4', source: at('root/other.img'), options },
      { type: 'format/ext4', source: '{{ mount 0 }}', options: [] },
    ];
    try {
      const { active, system } = await mounts.activate(ctx, 'a', wanted);
      assert.match(system[0]!.source, /\/t\/1\/2$/);
      mkdirSync(at('disk'));
      await mountAll(system, at('disk'));
      writeFileSync(at('disk/kept'), 'kept');
      await unmountAll(at('disk'));
      assert.ok(existsSync(path.join(active[1]!.mountPoint, 'lost+found')));
    } catch (error) {
      if (/ENOENT/.test(String((error as Error).message))) return t.skip('no mkfs.ext4 (e2fsprogs)');
      throw error;
    }
    await mounts.deactivate(ctx, 'a');
    // What is there is not made again.
    const { system } = await mounts.activate(ctx, 'b', wanted);
    await mountAll(system, at('disk'));
    assert.equal(readFileSync(at('disk/kept'), 'utf8'), 'kept');
    await unmountAll(at('disk'));
    await mounts.deactivate(ctx, 'b');
    const attached = readFileSync('/proc/self/mountinfo', 'utf8');
    assert.ok(!attached.includes(at('t')));
  });

  it('refuses what is malformed or leads out, and leaves nothing', async () => {
    symlinkSync('/etc', at('root/out'));
    const format = (source: string): Mount[] => [...one, { type: 'format/bind', source, options: [] }];
    const mkdir = (option: string): Mount[] => [{ type: 'mkdir/bind', source: '/', options: [option] }];
    const mkfs = (...options: string[]): Mount[] => [{ type: 'mkfs/custom', source: at('root/i'), options }];
    const cases: [Mount[], Code, RegExp][] = [
      [format('{{ mount 1 }}'), Code.InvalidArgument, /index out of bounds: 1, has 1 active mounts/],
      [format('{{ overlay 0 1 }}'), Code.InvalidArgument, /invalid range: 0-1/],
      [format('{{ env 1 }}'), Code.InvalidArgument, /function "env" not defined/],
      [format('{{ mount 0'), Code.InvalidArgument, /unclosed action/],
      [mkdir('X-containerd.mkdir.path=/etc/x'), Code.Unimplemented, /no root "\/etc\/x" configured for mkdir/],
      [mkdir(`X-containerd.mkdir.path=${at('root')}/../x`), Code.Unimplemented, /leads out/],
      [mkdir(`X-containerd.mkdir.path=${at('root/out/x')}`), Code.Unimplemented, /leads out/],
      [mkdir(`X-containerd.mkdir.path=${at('root/x')}:0999`), Code.InvalidArgument, /invalid mode/],
      [mkdir(`X-containerd.mkdir.path=${at('root/x')}:0755:1`), Code.InvalidArgument, /invalid mkdir option/],
      [mkdir('X-containerd.mkdir.uid=1'), Code.InvalidArgument, /invalid mkdir option/],
      [mkfs(), Code.InvalidArgument, /mkfs requires mkfs.size option/],
      [mkfs('X-containerd.mkfs.size=much'), Code.InvalidArgument, /invalid size/],
      [
        mkfs('X-containerd.mkfs.size=1m', 'X-containerd.mkfs.fs=--help'),
        Code.InvalidArgument,
        /unsupported filesystem/,
      ],
      [mkfs('X-containerd.mkfs.size=1m', 'X-containerd.mkfs.uuid=-x'), Code.InvalidArgument, /bad option uuid/],
    ];
    for (const [wanted, code, message] of cases) {
      await assert.rejects(mounts.activate(ctx, 'bad', wanted), withCode(code, message));
    }
    assert.deepEqual(await mounts.list(ctx), []);
    assert.deepEqual(readdirSync(at('t')), []);
    assert.equal(held(), 0);
    assert.deepEqual(readdirSync(at('root')), ['out']);
  });

  it('undoes the first mounts when a later one fails', async () => {
    const wanted: Mount[] = [...one, { type: 'bind', source: '/nonexistent', options: ['bind'] }, ...one];
    await assert.rejects(mounts.activate(ctx, 'a', wanted), /mount failed bind \/nonexistent/);
    assert.equal(held(), 0);
    await mounts.activate(ctx, 'a', one);
  });

  it('lives as long as its lease, its label or what it is kept by', async () => {
    await meta.leases.create(ctx, { id: 'l', labels: {} });
    await mounts.activate(contextOf('ns', 'l'), 'leased', one);
    await meta.layer(ctx, 'base');
    await mounts.activate(ctx, 'with snapshot', one, {
      labels: { 'containerd.io/gc.bref.snapshot.memory/x': 'base' },
    });
    await meta.snapshotter.update(ctx, { name: 'base', labels: { 'containerd.io/gc.root': 'x' } }, ['labels']);
    await mounts.activate(ctx, 'root', one, { labels: { 'containerd.io/gc.root': 'yes' } });
    await mounts.activate(ctx, 'loose', one);
    const names = async () => (await mounts.list(ctx)).map(({ name }) => name).sort();
    await meta.gc.collect();
    assert.deepEqual(await names(), ['leased', 'root', 'with snapshot']);
    assert.equal(held(), 3);
    assert.deepEqual(await meta.leases.listResources(ctx, 'l'), [{ type: 'mounts', id: 'leased' }]);
    await meta.leases.delete(ctx, 'l');
    await meta.snapshotter.update(ctx, { name: 'base', labels: {} }, ['labels']);
    await meta.gc.collect();
    assert.deepEqual(await names(), ['root']);
    assert.equal(held(), 1);
  });

  it('a daemon that comes after a killed one keeps what is whole, and undoes the rest', async () => {
    await mounts.activate(ctx, 'kept', one, { labels: { 'containerd.io/gc.root': 'x' } });
    await mounts.activate(ctx, 'gone', one);
    const gone = (await mounts.info(ctx, 'gone')).active[0]!.mountPoint;
    await unmountAll(gone);
    // Half-made: a record and some mounts; and one whose record went and whose mounts stayed.
    const half = await mounts.activate(ctx, 'half', one);
    await meta.store.update((tx) => {
      const key = ['mount', 'ns', 'half'];
      tx.put(key, { ...tx.get<object>(key), complete: false });
      tx.remove(['mount', 'ns', 'lost']);
    });
    await mounts.activate(ctx, 'lost', one);
    await meta.store.update((tx) => tx.remove(['mount', 'ns', 'lost']));
    assert.equal(held(), 3);
    mounts = await open();
    assert.deepEqual(
      (await mounts.list(ctx)).map(({ name }) => name),
      ['kept'],
    );
    assert.equal(held(), 1);
    assert.ok(!existsSync(half.active[0]!.mountPoint));
    await mounts.activate(ctx, 'half', one);
    assert.equal(readdirSync(at('t')).length, 2);
  });

  it('a call’s own activation ends with the call, and with the daemon', async () => {
    const seen = await withActivation(mounts, ctx, 'test', one, async ([mount]) => {
      await meta.gc.collect();
      return [mount!.type, readFileSync(path.join(mount!.source, 'source'), 'utf8')];
    });
    assert.deepEqual(seen, ['bind', 'one']);
    assert.equal(held(), 0);
    await mounts.activate(ctx, 'mine', one, { transient: true });
    mounts = await open();
    assert.equal(held(), 0);
  });
});
