// What a containerd was used for, and what each such thing needs here.
import { existsSync, readdirSync } from 'node:fs';
import { resolveRuntime } from '@gantry/daemon/plugins/runtime-v2/runtime-path.ts';
import type { ContainerdMetadata } from './containerd/records.ts';
import type { ContainerdPlace } from './places.ts';
import type { Survey } from './survey.ts';
import { takeable } from './takeover/take-snapshots.ts';

export interface Feature {
  name: string;
  /** Who uses it. */
  usedBy: string;
  /** `there`: works here as it is; `needed`: works once something is done; `absent`: not here yet. */
  state: 'there' | 'needed' | 'absent';
  needs: string;
}

type Table = Record<string, unknown>;

/** @param plugins URIs of the plugins that there are here */
export async function features(
  from: ContainerdPlace,
  survey: Survey,
  plugins: ReadonlySet<string>,
): Promise<Feature[]> {
  return [
    ...kubernetes(survey.metadata, plugins),
    ...(await runtimes(survey.metadata)),
    ...snapshotters(survey.metadata, from, plugins),
    ...sandboxes(survey.metadata),
    ...restarts(survey.metadata),
    ...proxies(from),
    ...nri(from, plugins),
    ...configured(from, plugins),
  ];
}

const count = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`;

function kubernetes({ namespaces }: ContainerdMetadata, plugins: ReadonlySet<string>): Feature[] {
  const containers = namespaces
    .flatMap((one) => one.containers)
    .filter((one) => 'io.cri-containerd.kind' in one.labels);
  if (containers.length === 0) return [];
  const pods = containers.filter(({ labels }) => labels['io.cri-containerd.kind'] === 'sandbox').length;
  const there = plugins.has('io.containerd.grpc.v1.cri');
  return [
    {
      name: 'Kubernetes (CRI)',
      usedBy: `${count(pods, 'pod')}, ${count(containers.length - pods, 'container')}`,
      state: there ? 'there' : 'absent',
      needs: there
        ? 'the kubelet’s endpoint set to this daemon’s socket'
        : 'the CRI plugin, which is not here yet: containers run on as tasks, but the kubelet cannot manage them, and one that writes more than a pipe holds waits for its log to be read',
    },
  ];
}

async function runtimes({ namespaces }: ContainerdMetadata): Promise<Feature[]> {
  const used = new Map<string, number>();
  for (const { containers } of namespaces)
    for (const { runtime } of containers) used.set(runtime.name, (used.get(runtime.name) ?? 0) + 1);
  const found: Feature[] = [];
  for (const [name, number] of used) {
    const usedBy = count(number, 'container');
    if (name === 'io.containerd.runtime.v1.linux' || name === 'io.containerd.runc.v1') {
      const needs =
        'another runtime: containerd 2 has removed this one too; make the container anew with io.containerd.runc.v2';
      found.push({ name: `runtime ${name}`, usedBy, state: 'absent', needs });
      continue;
    }
    const own = name === 'io.containerd.runc.v2' || name === 'io.containerd.gantry.v1';
    if (own) {
      const needs = 'nothing: running tasks keep containerd’s shim, new ones get gantry-shim';
      found.push({ name: `runtime ${name}`, usedBy, state: 'there', needs });
      continue;
    }
    const where = await resolveRuntime(name, { ownShim: '', runcV2Shim: '', directories: [] }).catch(() => undefined);
    found.push({
      name: `runtime ${name}`,
      usedBy,
      state: where ? 'there' : 'needed',
      needs: where ? `nothing: its shim is ${where.path}` : 'its shim in a directory of PATH',
    });
  }
  return found;
}

function snapshotters(
  { namespaces }: ContainerdMetadata,
  { config }: ContainerdPlace,
  plugins: ReadonlySet<string>,
): Feature[] {
  const used = new Map<string, number>();
  for (const { snapshots } of namespaces)
    for (const { snapshotter } of snapshots) used.set(snapshotter, (used.get(snapshotter) ?? 0) + 1);
  const proxied = (config['proxy_plugins'] ?? {}) as Table;
  return [...used].map(([name, number]): Feature => {
    const base = { name: `snapshotter ${name}`, usedBy: count(number, 'snapshot') };
    if (takeable.includes(name)) {
      return { ...base, state: 'there', needs: 'containerd’s root kept: snapshots are used where they are' };
    }
    if (name in proxied) {
      const needs =
        'the same [proxy_plugins] table here, and images pulled and containers made anew: its snapshots are not taken';
      return { ...base, state: 'needed', needs };
    }
    return plugins.has(`io.containerd.snapshotter.v1.${name}`) && !['devmapper', 'zfs'].includes(name)
      ? { ...base, state: 'needed', needs: 'images unpacked and containers made anew: its snapshots are not taken' }
      : { ...base, state: 'absent', needs: 'another snapshotter: this one is not here; its snapshots are not taken' };
  });
}

function sandboxes({ namespaces }: ContainerdMetadata): Feature[] {
  const shims = namespaces.flatMap((one) => one.sandboxes).filter(({ sandboxer }) => sandboxer !== 'podsandbox');
  if (shims.length === 0) return [];
  return [
    {
      name: 'sandboxes of shims',
      usedBy: count(shims.length, 'sandbox').replace('sandboxs', 'sandboxes'),
      state: 'there',
      needs: 'nothing: they stay in their shims',
    },
  ];
}

function restarts({ namespaces }: ContainerdMetadata): Feature[] {
  const watched = namespaces
    .flatMap((one) => one.containers)
    .filter((one) => 'containerd.io/restart.status' in one.labels);
  if (watched.length === 0) return [];
  const needs = 'nothing: the restart monitor reads the same labels';
  return [{ name: 'restart monitor', usedBy: count(watched.length, 'container'), state: 'there', needs }];
}

function proxies({ config }: ContainerdPlace): Feature[] {
  return Object.entries((config['proxy_plugins'] ?? {}) as Record<string, Table>).map(([name, table]) => ({
    name: `proxy plugin ${name}`,
    usedBy: 'configuration',
    state: 'needed',
    needs: `the same [proxy_plugins.${name}] table here, and its program at ${String(table['address'] ?? '')}`,
  }));
}

function nri({ config }: ContainerdPlace, plugins: ReadonlySet<string>): Feature[] {
  const uri = 'io.containerd.nri.v1.nri';
  const table = ((config['plugins'] ?? {}) as Record<string, Table>)[uri] ?? {};
  const folder = typeof table['plugin_path'] === 'string' ? table['plugin_path'] : '/opt/nri/plugins';
  const programs = table['disable'] !== true && existsSync(folder) ? readdirSync(folder) : [];
  if (programs.length === 0) return [];
  const there = plugins.has(uri);
  return [
    {
      name: 'NRI',
      usedBy: `${count(programs.length, 'plugin')} in ${folder}`,
      state: there ? 'needed' : 'absent',
      needs: there ? 'the plugins to connect to this daemon' : 'NRI, which is not here yet',
    },
  ];
}

/** Tables of plugins that there are none of here. */
function configured({ config }: ContainerdPlace, plugins: ReadonlySet<string>): Feature[] {
  return Object.keys((config['plugins'] ?? {}) as Table)
    .filter((uri) => !plugins.has(uri))
    .map((uri) => ({
      name: `plugin ${uri}`,
      usedBy: 'configuration',
      state: 'absent',
      needs: 'nothing if it is not used: there is no such plugin here, and its table is ignored',
    }));
}
