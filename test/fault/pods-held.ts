import { existsSync, lstatSync, readdirSync, readFileSync, statfsSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { processesMentioning } from '../lib/processes.ts';
import { mountsBeneath } from '../lib/temp-dir.ts';
import { gather } from './connection.ts';
import type { PodsLab } from './pods-lab.ts';
import { cgroupFolders } from './survey.ts';

/** Things that a pod has while it is there, and nobody may have after it: each a number. */
export interface Held {
  processes: number;
  mounts: number;
  netns: number;
  interfaces: number;
  addresses: number;
  cgroups: number;
  fifos: number;
  /** Files and directories beneath the state directory. */
  state: number;
  /** The same beneath the root directory, snapshots each counted as one. */
  root: number;
  records: number;
  leases: number;
  snapshots: number;
  tasks: number;
}

const NSFS = 0x6e736673;

/** Counts what there is now. */
export async function held(lab: PodsLab): Promise<Held> {
  const { directory, daemon, connection } = lab;
  const mounts = mountsBeneath(directory);
  const state = entriesBeneath(daemon.state);
  const groups = cgroupsBeneath(lab.cgroup);
  const [snapshots, containers, sandboxes, leases, tasks] = await Promise.all([
    gather(connection.snapshots.list({ snapshotter: 'overlayfs' }), ({ info }) => info),
    connection.containers.list({}),
    connection.sandboxes.list({}),
    connection.leases.list({}),
    connection.tasks.list({}),
  ]);
  return {
    processes: new Set([...processesMentioning(directory).map(({ pid }) => pid), ...pidsIn(groups)]).size,
    mounts: mounts.length,
    netns: mounts.filter((point) => isNetns(point)).length,
    interfaces: bridgePorts(lab.cri.network.bridge).length,
    addresses: addresses(lab).length,
    cgroups: groups.length,
    fifos: state.filter((file) => isFifo(file)).length,
    state: state.length,
    root: entriesBeneath(daemon.root, 'snapshots').length,
    records: containers.containers.length + sandboxes.list.length,
    leases: leases.leases.length,
    snapshots: snapshots.length,
    tasks: tasks.tasks.length,
  };
}

/** What a process has open and occupies. Memory in KiB. */
export interface Usage {
  descriptors: number;
  threads: number;
  rss: number;
  pss: number;
  /** What is no file's, such as the heap. */
  anonymous: number;
  /** Of the main thread, after a collection; 0 where it cannot be asked. */
  heap: number;
}

export async function usage(pid: number, debugSocket: string): Promise<Usage> {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const memory = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(rollup)?.[1] ?? 0);
  const heap = await heapOf(debugSocket);
  return {
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: readdirSync(`/proc/${pid}/task`).length,
    rss: memory('Rss'),
    pss: memory('Pss'),
    anonymous: memory('Anonymous'),
    heap: Math.round(heap / 1024),
  };
}

async function heapOf(socketPath: string): Promise<number> {
  if (!existsSync(socketPath)) return 0;
  const report = await text(await asked(socketPath, '/debug/memory?gc=1'));
  return (JSON.parse(report) as { process: { heapUsed: number } }).process.heapUsed;
}

/**
 * Has V8 find out where the lines of every script end, as it does once for each when the first error comes from it: a megabyte that otherwise
 * comes at some later time, and looks like growth.
 */
export async function knowLines(socketPath: string): Promise<void> {
  if (!existsSync(socketPath)) return;
  // A snapshot tells where each function stands.
  for await (const _ of await asked(socketPath, '/debug/pprof/heap'));
}

function asked(socketPath: string, file: string): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    http.get({ socketPath, path: file, agent: false }, resolve).on('error', reject);
  });
}

/** The control socket of a shim that there is one of. */
export function controlSocket(lab: PodsLab): string {
  const folder = path.join(lab.daemon.state, 's');
  const [name = ''] = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.c')) : [];
  return path.join(folder, name);
}

export function addresses(lab: PodsLab): string[] {
  const folder = path.join(lab.directory, 'ipam', lab.cri.network.bridge);
  return existsSync(folder) ? readdirSync(folder).filter((name) => /^\d/.test(name)) : [];
}

/** Interfaces of the host that lead to pods. */
export function bridgePorts(bridge: string): string[] {
  const folder = `/sys/class/net/${bridge}/brif`;
  return existsSync(folder) ? readdirSync(folder) : [];
}

export function isNetns(file: string): boolean {
  try {
    return statfsSync(file).type === NSFS;
  } catch {
    // It was unmounted meanwhile.
    return false;
  }
}

/** All cgroups beneath one, in each hierarchy. */
export function cgroupsBeneath(name: string): string[] {
  return cgroupFolders(name).flatMap((folder) => directoriesBeneath(folder));
}

function directoriesBeneath(folder: string): string[] {
  const found: string[] = [];
  for (const entry of listed(folder)) {
    if (!entry.isDirectory()) continue;
    const directory = path.join(folder, entry.name);
    found.push(directory, ...directoriesBeneath(directory));
  }
  return found;
}

function pidsIn(groups: readonly string[]): number[] {
  return groups.flatMap((group) => {
    try {
      return readFileSync(path.join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
    } catch {
      // It went while we looked.
      return [];
    }
  });
}

/** Everything beneath a directory, not across mounts. @param closed of a directory of this name only the first level is looked at */
function entriesBeneath(folder: string, closed = ''): string[] {
  const found: string[] = [];
  const device = existsSync(folder) ? lstatSync(folder).dev : 0;
  const walk = (directory: string): void => {
    const deeper = path.basename(directory) !== closed;
    for (const entry of listed(directory)) {
      const file = path.join(directory, entry.name);
      found.push(file);
      if (deeper && entry.isDirectory() && onDevice(file, device)) walk(file);
    }
  };
  walk(folder);
  return found;
}

function onDevice(file: string, device: number): boolean {
  try {
    return lstatSync(file).dev === device;
  } catch {
    return false;
  }
}

function isFifo(file: string): boolean {
  try {
    return lstatSync(file).isFIFO();
  } catch {
    return false;
  }
}

function listed(folder: string) {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    return [];
  }
}
