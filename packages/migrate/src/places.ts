// Where containerd keeps its things, by its configuration, and where this daemon keeps its own.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { type Daemon, loadConfig, type Plugin } from '@gantry/daemon';
import { sandboxController } from './survey.ts';

type Table = Record<string, unknown>;

export interface ContainerdPlace {
  root: string;
  state: string;
  /** Its sockets for clients and for shims. */
  address: string;
  ttrpcAddress: string;
  /** The file that was read; undefined if there is none. */
  configFile: string | undefined;
  /** What it says, in the newest version of the format. */
  config: Table;
  snapshotterRoots: ReadonlyMap<string, string>;
  contentRoot: string | undefined;
}

export const defaultContainerdConfig = '/etc/containerd/config.toml';

/**
 * Reads containerd's configuration, of any version, and what it imports.
 * @param given what the command line says, which goes before
 * @throws StatusError NotFound for a named file that is not there, InvalidArgument for one that is wrong
 */
export async function containerdPlace(
  given: { [name in 'root' | 'state' | 'config' | 'address']?: string | undefined },
  plugins: readonly Plugin[],
): Promise<ContainerdPlace> {
  const file = path.resolve(given.config ?? defaultContainerdConfig);
  const configFile = given.config !== undefined || existsSync(file) ? file : undefined;
  const { raw } = await loadConfig({ path: configFile, plugins });
  const tables = (raw['plugins'] ?? {}) as Record<string, Table | undefined>;
  const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);
  const state = path.resolve(given.state ?? text(raw['state']) ?? '/run/containerd');
  const address =
    given.address ?? text(tables['io.containerd.server.v1.grpc']?.['address']) ?? path.join(state, 'containerd.sock');
  const snapshotterRoots = new Map<string, string>();
  for (const [uri, table] of Object.entries(tables)) {
    const [, name] = /^io\.containerd\.snapshotter\.v1\.(.+)$/.exec(uri) ?? [];
    const root = text(table?.['root_path']);
    if (name && root) snapshotterRoots.set(name, root);
  }
  return {
    root: path.resolve(given.root ?? text(raw['root']) ?? '/var/lib/containerd'),
    state,
    address,
    ttrpcAddress: text(tables['io.containerd.server.v1.ttrpc']?.['address']) ?? `${address}.ttrpc`,
    configFile,
    config: raw,
    snapshotterRoots,
    contentRoot: text(tables['io.containerd.content.v1.content']?.['root_path']),
  };
}

/** Where a daemon that is not started keeps what it has. */
export interface GantryPlace {
  root: string;
  state: string;
  ttrpcAddress: string;
  contentRoot: string;
  metadataFile: string;
  /** Bundles of tasks: `<namespace>/<id>` beneath. */
  bundles: string;
  /** The same of sandboxes. */
  sandboxBundles: string;
  snapshotterRoot(name: string): string;
}

export function gantryPlace(daemon: Daemon, plugins: readonly Plugin[]): GantryPlace {
  const under = (uri: string) => path.join(daemon.root, uri);
  return {
    root: daemon.root,
    state: daemon.state,
    ttrpcAddress: daemon.ttrpcAddress,
    contentRoot: under('io.containerd.content.v1.content'),
    metadataFile: path.join(under('io.containerd.metadata.v1.bolt'), 'meta.lmdb'),
    bundles: path.join(daemon.state, 'io.containerd.runtime.v2.task'),
    sandboxBundles: path.join(daemon.state, sandboxController),
    snapshotterRoot(name) {
      const plugin = plugins.find((one) => one.type === 'io.containerd.snapshotter.v1' && one.id === name);
      const config = plugin ? (daemon.config.pluginConfig(plugin) as { root_path?: string }) : {};
      return config.root_path || under(`io.containerd.snapshotter.v1.${name}`);
    },
  };
}
