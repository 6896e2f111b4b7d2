import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { Code, hasCode } from '@gantry/api';
import { Kind } from '@gantry/api/gen/services/snapshots/v1/snapshots_pb.js';
import { Status } from '@gantry/api/gen/types/task/task_pb.js';
import { type Connection, gather } from './connection.ts';
import { hashTree } from './fault-images.ts';
import {
  createTask,
  pullImage,
  removeSnapshot,
  removeTask,
  snapshotter,
  startTask,
  type World,
  writeBlob,
} from './workload.ts';

/** Whether a call finds what it asks for; other errors are thrown. */
export async function found(call: Promise<unknown>): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if (hasCode(error, Code.NotFound)) return false;
    throw error;
  }
}

async function readBlob({ content }: Connection, digest: string): Promise<Buffer> {
  const chunks = await gather(content.read({ digest }), ({ data }) => [data]);
  return Buffer.concat(chunks);
}

export async function checkBlob(connection: Connection, digest: string): Promise<void> {
  const bytes = await readBlob(connection, digest);
  const hash = createHash('sha256').update(bytes).digest('hex');
  assert.equal(`sha256:${hash}`, digest, 'a blob is not what its digest says');
  const { info } = await connection.content.info({ digest });
  assert.equal(Number(info?.size), bytes.length);
}

/** An image is all there: blobs, snapshots, and every unpacked file as it was packed. */
export async function checkImage(world: World, connection: Connection, name: string): Promise<void> {
  const known = world.images.get(name)!;
  const { image } = await connection.images.get({ name });
  assert.equal(image?.target?.digest, known.digests[0]);
  for (const digest of known.digests) await checkBlob(connection, digest);
  for (const key of known.chainIds) await connection.snapshots.stat({ snapshotter, key });
  const key = `look-at-${name}`;
  const { lease } = world;
  const parent = known.chainIds.at(-1)!;
  const { mounts } = await connection.snapshots.view({ snapshotter, key, parent }, { lease });
  const [mount] = mounts;
  const lower = mount?.options.find((option) => option.startsWith('lowerdir='))?.slice('lowerdir='.length);
  const files = new Map<string, string>();
  for (const directory of lower?.split(':') ?? [mount!.source]) hashTree(directory, files);
  sameFiles(files, known.files, name);
  await connection.snapshots.remove({ snapshotter, key }, { lease });
}

function sameFiles(found: ReadonlyMap<string, string>, known: ReadonlyMap<string, string>, what: string): void {
  assert.deepEqual(new Map([...found].sort()), new Map([...known].sort()), `the files of ${what}`);
}

/** Looks at everything the clients were answered, and finds out what became of the rest. */
export async function checkAnswered(world: World, connection: Connection): Promise<void> {
  const { ledger } = world;
  const { images, snapshots, leases, content } = connection;
  for (const name of ledger.images.ids()) {
    const there = await found(images.get({ name }));
    if (ledger.images.entries.get(name)?.fate === 'there') assert.ok(there, `image ${name} is lost`);
    ledger.images.settle(name, there);
    // An image that is there is whole, answered or not.
    if (there) await checkImage(world, connection, name);
  }
  for (const digest of ledger.blobs.ids()) {
    const there = await found(content.info({ digest }));
    if (ledger.blobs.entries.get(digest)?.fate === 'there') assert.ok(there, `blob ${digest} is lost`);
    ledger.blobs.settle(digest, there);
    if (there) await checkBlob(connection, digest);
  }
  for (const key of ledger.snapshots.ids()) {
    const there = await found(snapshots.stat({ snapshotter, key }));
    if (ledger.snapshots.entries.get(key)?.fate === 'there') assert.ok(there, `snapshot ${key} is lost`);
    ledger.snapshots.settle(key, there);
    if (there) await checkSnapshot(world, connection, key);
  }
  const present = new Set((await leases.list({})).leases.map(({ id }) => id));
  for (const id of ledger.leases.ids()) {
    if (ledger.leases.entries.get(id)?.fate === 'there') assert.ok(present.has(id), `lease ${id} is lost`);
    ledger.leases.settle(id, present.has(id));
  }
  await checkContainers(world, connection);
  await checkTasks(world, connection);
}

/** A snapshot that is recorded has its directories. */
async function checkSnapshot({ lease, ledger }: World, { snapshots }: Connection, key: string): Promise<void> {
  const { info } = await snapshots.stat({ snapshotter, key });
  // A committed one has no mounts of its own: a view shows it.
  const look = info?.kind === Kind.COMMITTED ? `look-at-${key}` : undefined;
  const { mounts } = look
    ? await snapshots.view({ snapshotter, key: look, parent: key }, { lease })
    : await snapshots.mounts({ snapshotter, key });
  const files = ledger.snapshots.detail(key);
  if (look && files) sameFiles(hashTree(topDirectory(mounts)), files, key);
  for (const { type, source, options } of mounts) {
    const directories = type === 'bind' ? [source] : [];
    for (const option of options) {
      const value = /^(?:lowerdir|upperdir|workdir)=(.*)$/.exec(option)?.[1];
      directories.push(...(value?.split(':') ?? []));
    }
    for (const directory of directories) readdirSync(directory);
  }
  if (look) await snapshots.remove({ snapshotter, key: look }, { lease });
}

/** Where the uppermost snapshot's own files are, by the mounts of a view of it. */
function topDirectory([mount]: readonly { type: string; source: string; options: readonly string[] }[]): string {
  const lower = mount?.options.find((option) => option.startsWith('lowerdir='))?.slice('lowerdir='.length);
  return lower?.split(':')[0] ?? mount?.source ?? '';
}

/** Whatever can be seen is whole, also what nobody was answered: every blob is what it is called, every layer's files are all there. */
export async function checkWhole(world: World, connection: Connection): Promise<void> {
  const { content, snapshots } = connection;
  // What is nobody's may be collected meanwhile.
  for (const { digest } of await gather(content.list({}), ({ info }) => info))
    await found(checkBlob(connection, digest));
  const layers = new Map<string, ReadonlyMap<string, string>>();
  for (const { chainIds, layers: files } of world.images.values()) {
    for (const [number, chainId] of chainIds.entries()) layers.set(chainId, files[number]!);
  }
  for (const { name, kind } of await gather(snapshots.list({ snapshotter }), ({ info }) => info)) {
    if (kind !== Kind.COMMITTED) continue;
    const files = layers.get(name) ?? world.ledger.snapshots.detail(name);
    if (!files) continue;
    const view = { snapshotter, key: `look-at-${name}`, parent: name };
    const shown = async () => {
      const { mounts } = await snapshots.view(view, { lease: world.lease });
      sameFiles(hashTree(topDirectory(mounts)), files, name);
      await snapshots.remove({ snapshotter, key: view.key }, { lease: world.lease });
    };
    await found(shown());
  }
}

async function checkContainers({ ledger }: World, { containers }: Connection): Promise<void> {
  for (const id of ledger.containers.ids()) {
    const there = await found(containers.get({ id }));
    if (ledger.containers.entries.get(id)?.fate === 'there') assert.ok(there, `container ${id} is lost`);
    if (there) {
      const { container } = await containers.get({ id });
      assert.deepEqual(container?.labels, ledger.containers.detail(id), `labels of container ${id}`);
    }
    ledger.containers.settle(id, there);
  }
}

async function checkTasks({ ledger }: World, { tasks }: Connection): Promise<void> {
  const listed = new Map((await tasks.list({})).tasks.map((task) => [task.id, task]));
  for (const id of ledger.tasks.ids()) {
    const task = listed.get(id);
    const { fate, detail: plan } = ledger.tasks.entries.get(id)!;
    if (fate === 'there') assert.ok(task, `task ${id} is lost`);
    ledger.tasks.settle(id, task !== undefined);
    if (!task || fate !== 'there' || plan.signalled || !plan.started) continue;
    const { status } = task;
    if (plan.exitCode === undefined) {
      assert.equal(Status[status], 'RUNNING', `task ${id}`);
      process.kill(task.pid, 0);
    } else {
      const { exitStatus } = await tasks.wait({ containerId: id }, { timeoutMs: 10_000 });
      assert.equal(exitStatus, plan.exitCode, `exit code of ${id}, told by wait`);
      const state = (await tasks.get({ containerId: id })).process;
      assert.equal(state?.exitStatus, plan.exitCode, `exit code of ${id}, told by get`);
      assert.equal(Status[state.status], 'STOPPED');
    }
  }
  for (const id of listed.keys()) assert.ok(ledger.tasks.entries.has(id), `task ${id} is nobody's`);
}

/** Goes on with what the crash cut off: ingests from where they were, tasks under the same names. */
export async function resume(world: World, connection: Connection): Promise<void> {
  const { ledger, lease, random } = world;
  const { content, tasks, containers } = connection;
  for (const [ref, plan] of [...ledger.ingests]) {
    if (ledger.blobs.entries.get(plan.digest)?.fate === 'there') {
      ledger.ingests.delete(ref);
      continue;
    }
    const begun = await found(content.status({ ref }));
    if (plan.written > 0 && !plan.committing) assert.ok(begun, `ingest ${ref} is lost`);
    if (begun && !plan.committing) {
      const { status } = await content.status({ ref });
      assert.ok(Number(status?.offset) >= plan.written, `${ref}: answered bytes are lost`);
    }
    if (random.chance(0.7)) {
      await writeBlob(world, connection, ref);
      await checkBlob(connection, plan.digest);
    } else {
      if (begun) await content.abort({ ref }, { lease });
      ledger.ingests.delete(ref);
    }
  }
  // A pull is asked for again; what the first had fetched is under its lease.
  for (const name of world.references.keys()) {
    if (ledger.images.entries.has(name) || random.chance(0.5)) continue;
    await pullImage(world, connection, name);
    await checkImage(world, connection, name);
  }
  for (const id of ledger.containers.ids()) {
    const listed = (await tasks.list({})).tasks.find((task) => task.id === id);
    const plan = ledger.tasks.detail(id);
    if (listed && plan && (plan.started || plan.signalled) && !plan.signalled) continue;
    // Half-made or half-removed: its remains do not stand in the way of a new one under the same name.
    if (listed) await endTask(connection, id);
    ledger.tasks.entries.delete(id);
    await ledger.containers.remove(id, () => containers.delete({ id }));
    if (ledger.snapshots.entries.has(id)) await removeSnapshot(world, connection, id);
    await createTask(world, connection, id, 'exit 5');
    await startTask(world, connection, id);
    const { exitStatus } = await tasks.wait({ containerId: id }, { timeoutMs: 10_000 });
    assert.equal(exitStatus, 5, `exit code of ${id}, made again`);
    await removeTask(world, connection, id);
  }
}

/** Ends and deletes a task in whatever state it is. */
async function endTask({ tasks }: Connection, id: string): Promise<void> {
  const exited = tasks.wait({ containerId: id }, { timeoutMs: 10_000 });
  exited.catch(() => undefined);
  // One that has ended by itself has nobody to signal.
  await found(tasks.kill({ containerId: id, signal: 9 }));
  await exited;
  await tasks.delete({ containerId: id });
}
