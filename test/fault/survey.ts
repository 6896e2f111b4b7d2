import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmdirSync } from 'node:fs';
import path from 'node:path';
import type { TestDaemon } from '../lib/daemon.ts';
import { eventually, processesMentioning } from '../lib/processes.ts';
import { mountsBeneath } from '../lib/temp-dir.ts';
import { type Connection, gather } from './connection.ts';
import { removeSnapshot, snapshotter, type World } from './workload.ts';

function names(...parts: string[]): string[] {
  const directory = path.join(...parts);
  return existsSync(directory) ? readdirSync(directory).sort() : [];
}

/** Drops what the killed daemon's clients will not come back for, then collects and waits for it. */
export async function collect(world: World, { leases, content }: Connection): Promise<void> {
  const { ledger, lease } = world;
  // The daemon's own leases end with the daemon: a new one has none of them.
  const orphans = (await leases.list({})).leases.filter(({ id }) => id !== lease && !ledger.leases.entries.has(id));
  assert.deepEqual(orphans, [], 'leases');
  for (const { ref } of (await content.listStatuses({})).statuses) await content.abort({ ref });
  await leases.create({ id: 'collect' });
  await leases.delete({ id: 'collect', sync: true });
}

/** After a collection: records are exactly what clients have, and disk, mounts and cgroups exactly what records name. */
export async function survey(world: World, daemon: TestDaemon, connection: Connection): Promise<void> {
  const { ledger, images, namespace, cgroup } = world;
  const kept = ledger.images.ids().map((name) => images.get(name)!);
  const digests = new Set([...kept.flatMap((image) => image.digests), ...ledger.blobs.ids()]);
  const content = await gather(connection.content.list({}), ({ info }) => info);
  assert.deepEqual(content.map(({ digest }) => digest).sort(), [...digests].sort(), 'content');
  const store = path.join(daemon.root, 'io.containerd.content.v1.content');
  assert.deepEqual(
    names(store, 'blobs/sha256').map((hex) => `sha256:${hex}`),
    [...digests].sort(),
    'blobs on disk',
  );
  assert.deepEqual(names(store, 'ingest'), [], 'ingests on disk');

  const expected = new Set([...kept.flatMap((image) => image.chainIds), ...ledger.snapshots.ids()]);
  const snapshots = await gather(connection.snapshots.list({ snapshotter }), ({ info }) => info);
  assert.deepEqual(snapshots.map(({ name }) => name).sort(), [...expected].sort(), 'snapshots');
  const directories = names(daemon.root, `io.containerd.snapshotter.v1.${snapshotter}`, 'snapshots');
  assert.equal(directories.length, snapshots.length, `snapshot directories: ${directories}`);

  const leases = (await connection.leases.list({})).leases.map(({ id }) => id);
  assert.deepEqual(leases.sort(), [world.lease, ...ledger.leases.ids()].sort(), 'leases');
  const containers = (await connection.containers.list({})).containers.map(({ id }) => id);
  assert.deepEqual(containers.sort(), ledger.containers.ids().sort(), 'containers');

  const tasks = (await connection.tasks.list({})).tasks.map(({ id }) => id).sort();
  assert.deepEqual(tasks, ledger.tasks.ids().sort(), 'tasks');
  const runtime = 'io.containerd.runtime.v2.task';
  assert.deepEqual(names(daemon.state, runtime, namespace), tasks, 'bundles');
  assert.deepEqual(names(daemon.root, runtime, namespace), tasks, 'work directories');
  assert.deepEqual(names(world.directory, 'runc', namespace), tasks, 'state of the OCI runtime');
  const bundles = tasks.map((id) => path.join(daemon.state, runtime, namespace, id, 'rootfs'));
  // The root itself may be one.
  const mounts = mountsBeneath(daemon.directory).filter((point) => point !== daemon.root);
  assert.deepEqual(mounts.sort(), bundles, 'mounts');
  for (const group of cgroupsBeneath(cgroup)) {
    assert.ok(tasks.includes(path.basename(group)), `cgroup ${group} has no task`);
  }
  await oneShim(world.directory);
}

/** All containers have the same options, so one shim has them all; another may only be on its way out. */
async function oneShim(directory: string): Promise<void> {
  const shims = () => processesMentioning(directory).filter(({ command }) => command.startsWith('gantry-shim '));
  await eventually('one shim', () => (shims().length <= 1 ? true : undefined), 5_000).catch((error) => {
    throw new Error(`${(error as Error).message}: ${JSON.stringify(shims())}`);
  });
}

/** Removes all that is left, task by task. */
export async function removeEverything(world: World, connection: Connection): Promise<void> {
  const { ledger, lease } = world;
  const { tasks, containers, content, images, leases } = connection;
  for (const id of ledger.tasks.ids()) {
    const exited = tasks.wait({ containerId: id }, { timeoutMs: 10_000 });
    if (ledger.tasks.detail(id)?.exitCode === undefined) {
      await tasks.kill({ containerId: id, signal: 9, all: true });
      assert.equal((await exited).exitStatus, 137);
    }
    await exited;
    await ledger.tasks.remove(id, () => tasks.delete({ containerId: id }));
  }
  for (const id of ledger.containers.ids()) await ledger.containers.remove(id, () => containers.delete({ id }));
  // Children before parents.
  const infos = await gather(connection.snapshots.list({ snapshotter }), ({ info }) => info);
  for (let left = ledger.snapshots.ids(); left.length > 0; left = ledger.snapshots.ids()) {
    const leaves = left.filter(
      (key) => !left.some((other) => infos.find(({ name }) => name === other)?.parent === key),
    );
    for (const key of leaves) await removeSnapshot(world, connection, key);
  }
  for (const digest of ledger.blobs.ids())
    await ledger.blobs.remove(digest, () => content.delete({ digest }, { lease }));
  for (const id of ledger.leases.ids()) await ledger.leases.remove(id, () => leases.delete({ id }));
  for (const name of ledger.images.ids()) {
    if (name !== 'base') await ledger.images.remove(name, () => images.delete({ name }));
  }
}

/** The folder of a cgroup in every hierarchy that has it. */
export function cgroupFolders(name: string): string[] {
  const top = '/sys/fs/cgroup';
  const roots = existsSync(path.join(top, 'cgroup.controllers')) ? [top] : names(top).map((one) => path.join(top, one));
  return roots.map((root) => path.join(root, name)).filter((folder) => existsSync(folder));
}

function cgroupsBeneath(name: string): string[] {
  return cgroupFolders(name).flatMap((folder) =>
    readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => path.join(folder, entry.name)),
  );
}

/** Ends whatever a failed test has left running beneath its directory. */
export async function endProcesses(directory: string): Promise<void> {
  for (const { pid } of processesMentioning(directory)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It was faster.
    }
  }
  await nothingRuns(directory);
}

/** Removes the cgroups that a failed test has left, once nothing runs in them. */
export function removeCgroups(name: string): void {
  for (const folder of [...cgroupsBeneath(name), ...cgroupFolders(name)]) rmdirSync(folder);
}

/** Nothing of the test runs any more. @throws after ten seconds, naming what does */
export async function nothingRuns(directory: string): Promise<void> {
  await eventually(
    `no process mentions ${directory}`,
    () => (processesMentioning(directory).length === 0 ? true : undefined),
    10_000,
  ).catch((error) => {
    throw new Error(`${(error as Error).message}: ${JSON.stringify(processesMentioning(directory))}`);
  });
}
