import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { elements, leaf, madeFile, type Tree } from '../bolt/made-file.ts';
import { features } from '../features.ts';
import type { ContainerdPlace } from '../places.ts';
import { type Survey, survey } from '../survey.ts';
import { planSnapshots, takeable } from './take-snapshots.ts';
import { ownTasks, planTasks, takeTasks } from './take-tasks.ts';

let folder = '';
const at = (...parts: string[]) => path.join(folder, ...parts);
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'gantry-plan-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const options = () => ({ root: at('root'), state: at('state'), snapshotters: takeable });

function write(file: string, tree: Tree): void {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  writeFileSync(at(file), madeFile([leaf(elements(tree), 3)]));
}

/** A root with these namespaces, and overlayfs snapshots by number: 1 and 2 committed, above each other active ones. */
function look(namespaces: Tree): Survey {
  write('root/io.containerd.metadata.v1.bolt/meta.db', { v1: namespaces });
  const overlayfs = 'root/io.containerd.snapshotter.v1.overlayfs';
  const snapshot = (id: string, kind: string, parent = '') => ({ id, kind, ...(parent !== '' && { parent }) });
  write(`${overlayfs}/metadata.db`, {
    v1: {
      snapshots: {
        'ns/1/base': snapshot('\x01', '\x03'),
        'ns/2/lost': snapshot('\x02', '\x03', 'ns/1/base'),
        'ns/3/idle': snapshot('\x03', '\x02', 'ns/1/base'),
        'ns/4/runs': snapshot('\x04', '\x02', 'ns/1/base'),
        'ns/5/on-lost': snapshot('\x05', '\x02', 'ns/2/lost'),
      },
    },
  });
  for (const id of ['1', '3', '4', '5']) mkdirSync(at(overlayfs, 'snapshots', id), { recursive: true });
  return survey(options());
}

const snapshots = {
  overlayfs: {
    base: { name: 'ns/1/base' },
    lost: { name: 'ns/2/lost', parent: 'base' },
    idle: { name: 'ns/3/idle', parent: 'base' },
    runs: { name: 'ns/4/runs', parent: 'base' },
    'on-lost': { name: 'ns/5/on-lost', parent: 'lost' },
  },
};
const container = (key: string, more: Tree = {}) => ({ snapshotter: 'overlayfs', snapshotKey: key, ...more });

function bundle(id: string, files: Record<string, string>, namespace = 'ns'): void {
  const folder = at('state/io.containerd.runtime.v2.task', namespace, id);
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
}

test('snapshots that tasks use stay, other writable ones are copied, and what stands on a lost one is not taken', () => {
  bundle('runs', { address: 'unix:///run/s' });
  const found = look({ ns: { containers: { runs: container('runs'), idle: container('idle') }, snapshots } });
  const planned = planSnapshots(found, options()).get('overlayfs')!;
  assert.deepEqual(
    planned.map(({ key, kind, copied }) => [key, kind, copied]),
    [
      ['base', 'committed', false],
      ['idle', 'active', true],
      ['runs', 'active', false],
    ],
  );
  assert.deepEqual(found.problems, ['namespace ns: snapshot lost of overlayfs: its directory is missing']);
});

test('a circle of parents is no endless one', () => {
  const circle = {
    overlayfs: { base: { name: 'ns/1/base', parent: 'idle' }, idle: { name: 'ns/3/idle', parent: 'base' } },
  };
  assert.equal(planSnapshots(look({ ns: { snapshots: circle } }), options()).size, 0);
});

test('tasks come with what their bundles say, in the form of every release', () => {
  bundle('old', { address: 'unix:///run/old', 'shim-binary-path': '/bin/sh' });
  bundle('new', { 'bootstrap.json': '{"version":3,"address":"unix:///run/new","protocol":"ttrpc"}' });
  bundle('unstarted', { 'shim-binary-path': '/bin/sh' });
  bundle('elsewhere', { address: 'unix:///run/else' });
  bundle('here', { address: 'unix:///run/here', 'shim-binary-path': '/bin/sh' });
  bundle('.deleted', { address: 'x' });
  mkdirSync(at('state/io.containerd.runtime.v1.linux/ns/ancient'), { recursive: true });
  mkdirSync(at('bundles/ns/here'), { recursive: true });
  const runtime = (name: string) => ({ runtime: { name } });
  const found = look({
    ns: { containers: { new: runtime('/bin/true'), elsewhere: runtime('io.containerd.none.v9') } },
  });
  const to = { bundles: at('bundles'), sandboxBundles: at('sandboxes') };
  const plan = planTasks(found, to);
  assert.deepEqual(
    plan.taken.map(({ id, shimBinary }) => [id, shimBinary]),
    [
      ['new', '/bin/true'],
      ['old', '/bin/sh'],
    ],
  );
  assert.deepEqual(plan.problems, [
    'namespace ns: task elsewhere: the program of its shim cannot be found',
    'namespace ns: task here: a task of that name runs under this daemon already',
    'namespace ns: task unstarted: its shim was never started, so there is nothing to take over',
  ]);
  assert.ok(found.problems.some((text) => text.includes('task ancient: of runtime v1')));
  for (let times = 0; times < 2; times++) takeTasks(plan, to, '/run/c.ttrpc');
  assert.deepEqual(JSON.parse(readFileSync(at('bundles/ns/old/taken.json'), 'utf8')), {
    bundle: at('state/io.containerd.runtime.v2.task/ns/old'),
    ttrpcAddress: '/run/c.ttrpc',
  });
  assert.deepEqual(
    ownTasks(at('bundles')).map(({ id, taken: theirs }) => [id, theirs]),
    [
      ['here', false],
      ['new', true],
      ['old', true],
    ],
  );
});

test('a sandbox and its members share a shim, wherever its release keeps the bundle', () => {
  const shim = { address: 'unix:///run/pod', 'shim-binary-path': '/bin/sh' };
  bundle('member', { address: 'unix:///run/pod' });
  bundle('older', shim);
  bundle('pause', shim);
  const newer = at('state/io.containerd.sandbox.controller.v1.shim/ns/newer');
  mkdirSync(newer, { recursive: true });
  for (const [name, text] of Object.entries(shim)) writeFileSync(path.join(newer, name), text);
  const found = look({
    ns: {
      containers: { member: { sandboxid: 'newer' }, pause: { sandboxid: 'pause' } },
      sandboxes: { newer: { sandboxer: 'shim' }, older: { sandboxer: 'shim' }, pause: { sandboxer: 'podsandbox' } },
    },
  });
  const to = { bundles: at('bundles'), sandboxBundles: at('sandboxes') };
  const plan = planTasks(found, to);
  assert.equal(plan.taken[0]!.shimBinary, '/bin/sh');
  const names = (list: readonly { id: string; sandbox?: string | undefined }[]) =>
    list.map(({ id, sandbox }) => [id, sandbox]);
  assert.deepEqual(names(plan.sandboxes), [
    ['newer', 'newer'],
    ['older', 'older'],
  ]);
  assert.deepEqual(names(plan.taken), [
    ['member', 'newer'],
    ['pause', undefined],
  ]);
  takeTasks(plan, to, '/run/c.ttrpc');
  const group = JSON.parse(readFileSync(at('bundles/ns/member/shim-group.json'), 'utf8'));
  assert.deepEqual(group, { shared: false, sandbox: 'newer' });
  assert.deepEqual(JSON.parse(readFileSync(at('sandboxes/ns/newer/shim-group.json'), 'utf8')), group);
});

test('each used feature tells what it needs', async () => {
  const pod = { labels: { 'io.cri-containerd.kind': 'sandbox' }, runtime: { name: 'io.containerd.runc.v2' } };
  const found = look({
    'k8s.io': {
      containers: {
        pod,
        one: { ...pod, labels: { 'io.cri-containerd.kind': 'container', 'containerd.io/restart.status': 'running' } },
        old: { runtime: { name: 'io.containerd.runtime.v1.linux' } },
        kata: { runtime: { name: 'io.containerd.nowhere.v2' } },
      },
      snapshots: { devmapper: { thin: { name: 'ns/1/thin' } }, stargz: { lazy: { name: 'ns/2/lazy' } } },
    },
  });
  const place = {
    config: { proxy_plugins: { stargz: { address: '/run/stargz.sock' } }, plugins: { 'a.type.v1.id': {} } },
  } as unknown as ContainerdPlace;
  const told = async (...plugins: string[]) =>
    (await features(place, found, new Set(plugins))).map(({ name, usedBy, state }) => `${name}: ${usedBy}: ${state}`);
  assert.deepEqual(await told(), [
    'Kubernetes (CRI): 1 pod, 1 container: absent',
    'runtime io.containerd.nowhere.v2: 1 container: needed',
    'runtime io.containerd.runtime.v1.linux: 1 container: absent',
    'runtime io.containerd.runc.v2: 2 containers: there',
    'snapshotter devmapper: 1 snapshot: absent',
    'snapshotter stargz: 1 snapshot: needed',
    'restart monitor: 1 container: there',
    'proxy plugin stargz: configuration: needed',
    'plugin a.type.v1.id: configuration: absent',
  ]);
  assert.match((await told('io.containerd.grpc.v1.cri', 'a.type.v1.id')).join('\n'), /^Kubernetes.*: there$/m);
});
