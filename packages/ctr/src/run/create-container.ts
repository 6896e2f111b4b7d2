// Makes the container record (and its snapshot) that `run` and `containers create` ask for.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type Any, type Client, Code, type Container, hasCode, type NewContainer } from '@gantry/client';
import { parseJson, type RuntimeSpec } from '@gantry/oci';
import type { Invocation } from '../command.ts';
import { platformMatcher, resolveImage } from '../image-content.ts';
import { runtimeOptions } from '../runtime-options.ts';
import { parseLabels } from '../units.ts';
import { snapshotterOf, unpackImage } from '../unpack.ts';
import { readerOf, withSnapshotFiles } from './root-files.ts';
import { parseIdMap, specFromFlags } from './spec-from-flags.ts';

/** What was made; `remove` undoes it. */
export interface MadeContainer {
  readonly container: Container;
  readonly spec: RuntimeSpec;
}

/** The id and command in the arguments: with `--config` there is no image. @throws Error if one is missing */
export function containerArguments(invocation: Invocation): {
  reference: string;
  id: string;
  command: readonly string[];
} {
  const { args } = invocation;
  if (invocation.isSet('config')) {
    if (!args[0]) throw new Error('container id must be provided');
    if (args.length > 1)
      throw new Error('with spec config file, only container id should be provided: invalid argument');
    return { reference: '', id: args[0], command: [] };
  }
  if (!args[0]) throw new Error('image ref must be provided');
  if (!args[1]) throw new Error('container id must be provided');
  return { reference: args[0], id: args[1], command: args.slice(2) };
}

/** Removes a container's record and its snapshot. What is gone already is well. */
export async function removeContainer(
  client: Client,
  container: Pick<Container, 'id' | 'snapshotter' | 'snapshotKey'>,
  settings: { keepSnapshot?: boolean } = {},
): Promise<void> {
  const { snapshotter, snapshotKey } = container;
  if (!settings.keepSnapshot && snapshotKey !== '') {
    try {
      await client.snapshots(snapshotter || 'overlayfs').remove(snapshotKey);
    } catch (reason) {
      if (!hasCode(reason, Code.NotFound)) throw reason;
    }
  }
  await client.containers.delete(container.id);
}

/** @throws Error for bad flags; StatusError NotFound for an image, AlreadyExists for an id */
export async function createContainer(client: Client, invocation: Invocation): Promise<MadeContainer> {
  const { reference, id, command } = containerArguments(invocation);
  const options = runtimeOptions(invocation);
  const runtime: { name: string; options?: Any } = {
    name: invocation.string('runtime'),
    ...(options ? { options } : {}),
  };
  const sandbox = invocation.string('sandbox');
  const extensions = invocation.bool('cni') ? (await import('./cni.ts')).cniExtension() : undefined;
  const record: NewContainer = { id, runtime, ...(sandbox ? { sandbox } : {}), ...(extensions ? { extensions } : {}) };
  const labels = parseLabels(invocation.strings('label'));
  if (reference === '') {
    const spec = parseJson<RuntimeSpec & Record<string, never>>(readFileSync(invocation.string('config')));
    return { container: await client.containers.create({ ...record, labels, spec }), spec };
  }
  const names = { namespace: client.namespace, id };
  if (invocation.bool('rootfs')) {
    const root = path.resolve(reference);
    const look = async <T>(ask: (read: ReturnType<typeof readerOf>) => T) => ask(readerOf(root));
    const spec = await specFromFlags(invocation, names, { kind: 'directory', path: root }, command, look);
    return { container: await client.containers.create({ ...record, labels, spec }), spec };
  }
  return fromImage(client, invocation, { ...record, labels }, reference, command);
}

async function fromImage(
  unheld: Client,
  invocation: Invocation,
  record: NewContainer,
  reference: string,
  command: readonly string[],
): Promise<MadeContainer> {
  // Keeps the snapshot from the collector until the container holds it.
  await using lease = await unheld.leases.create({ expireAfter: 24 * 3600 });
  const client = unheld.withLease(lease);
  const [image, snapshotter] = await Promise.all([client.images.get(reference), snapshotterOf(client, invocation)]);
  const resolved = await resolveImage(client, image, platformMatcher(invocation.string('platform')));
  const parent = await unpackImage(client, resolved, snapshotter, { syncFs: invocation.bool('sync-fs') });
  const snapshots = client.snapshots(snapshotter);
  const prepare = async (): Promise<void> => {
    const mapped = await mappedParent(client, invocation, snapshotter, parent);
    await snapshots.prepare(record.id, mapped.parent, {
      ...parseLabels(invocation.strings('snapshotter-label')),
      ...mapped.labels,
    });
  };
  await prepare().catch((reason) => {
    // A copy with other owners that an earlier container has left is nobody's: the collector may take it from under this one.
    if (!hasCode(reason, Code.NotFound)) throw reason;
    return prepare();
  });
  try {
    const spec = await specFromFlags(
      invocation,
      { namespace: client.namespace, id: record.id },
      { kind: 'image', config: resolved.config },
      command,
      (look) => withSnapshotFiles(client, snapshotter, record.id, look),
    );
    const labels = {
      ...resolved.config.config?.Labels,
      'io.containerd.image.config.stop-signal': resolved.config.config?.StopSignal || 'SIGTERM',
      ...record.labels,
    };
    const container = await client.containers.create({
      ...record,
      labels,
      image: image.name,
      snapshotter,
      snapshotKey: record.id,
      spec,
    });
    return { container, spec };
  } catch (reason) {
    await snapshots.remove(record.id).catch(() => undefined);
    throw reason;
  }
}

/**
 * The snapshot that a container's is made from, whose ids may be mapped: by the snapshotter, told by labels, or, without
 * --remap-labels or where it cannot, by a copy with other owners.
 */
async function mappedParent(
  client: Client,
  invocation: Invocation,
  snapshotter: string,
  parent: string,
): Promise<{ parent: string; labels: Record<string, string> }> {
  const uids = invocation.strings('uidmap');
  const gids = invocation.strings('gidmap');
  if (uids.length === 0 || gids.length === 0) return { parent, labels: {} };
  const labels = {
    'containerd.io/snapshot/uidmapping': uids.join(','),
    'containerd.io/snapshot/gidmapping': gids.join(','),
  };
  if (invocation.bool('remap-labels')) {
    const plugins = await client.introspection.plugins([`type==io.containerd.snapshotter.v1,id==${snapshotter}`]);
    const capabilities = plugins[0]?.capabilities ?? [];
    if (capabilities.includes('remap-ids')) return { parent, labels };
    if (capabilities.includes('only-remap-ids'))
      throw new Error(
        `snapshotter "${snapshotter}" doesn't support idmap mounts on this host, configure \`slow_chown\` to allow a slower and expensive fallback`,
      );
  }
  const mappings = { uids: uids.map(parseIdMap), gids: gids.map(parseIdMap) };
  const { remappedSnapshot } = await import('./remapped-snapshot.ts');
  return {
    parent: await remappedSnapshot(client.snapshots(snapshotter), parent, mappings),
    labels: invocation.bool('remap-labels') ? labels : {},
  };
}
