import { globSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { Code, deadlineExceeded, hasCode } from '@gantry/api';
import type { Logger } from '../../core/log/logger.ts';
import { parseBootstrap } from './bootstrap.ts';
import {
  type Bundle,
  type BundleRoots,
  bundleAt,
  deleteBundle,
  listBundles,
  readBundleFile,
  sweepWork,
} from './bundle.ts';
import { removeDeadSocket } from './dead-socket.ts';
import { isOwn, type RuntimePath } from './runtime-path.ts';
import type { ShimConnection } from './shim-connection.ts';
import type { ShimGroup } from './shim-group.ts';
import type { ShimGroups } from './shim-groups.ts';

/** What the loading of tasks and that of sandboxes have in common: bundles that outlived the last daemon, with their shims. */
export interface LeftBundles {
  roots: BundleRoots;
  groups: ShimGroups;
  log: Logger;
}

/** Has each bundle loaded that was whole, removes the others and what work directories have no bundle. Before the daemon serves. */
export async function loadBundles(
  { roots, groups, log }: LeftBundles,
  load: (bundle: Bundle, runtime: RuntimePath) => Promise<void>,
  cleanUp?: (bundle: Bundle) => Promise<void>,
): Promise<void> {
  // What a shim of ours has whose bundle is gone, or has been emptied.
  const listed = cleanUp ? listedByShims(groups.shims.environment.socketDir, roots) : [];
  const loadOne = async (bundle: Bundle): Promise<void> => {
    const binary = await readBundleFile(bundle, 'shim-binary-path');
    if (binary !== undefined) return load(bundle, { path: binary, own: isOwn(bundle, binary, groups.runtimes) });
    if (listed.some(({ path }) => path === bundle.path)) return;
    await deleteBundle(bundle).catch((error) => log.error('bundle cannot be removed', { error, bundle: bundle.path }));
  };
  await Promise.all((await listBundles(roots)).map(loadOne));
  for (const bundle of listed) {
    if ((await readBundleFile(bundle, 'shim-binary-path')) !== undefined) continue;
    log.warn('bundle of a task is gone: what is left of it is ended', { id: bundle.id, namespace: bundle.namespace });
    await mkdir(bundle.path, { recursive: true, mode: 0o700 });
    await cleanUp?.(bundle);
  }
  await sweepWork(roots);
}

/** The bundles of this daemon's that our shims list, from names `<namespace>+<id>` in directories `*.d`. */
function listedByShims(socketDir: string, roots: BundleRoots): Bundle[] {
  return globSync('*.d/*+*', { cwd: socketDir }).flatMap((name) => {
    const [namespace = '', id = ''] = path.basename(name).split('+');
    const bundle = bundleAt(roots, namespace, id);
    try {
      return readFileSync(path.join(socketDir, name), 'utf8') === bundle.path ? [bundle] : [];
    } catch {
      return [];
    }
  });
}

/** Connects to the shim that a bundle was left with, or starts ours again. */
export function attachLeft(group: ShimGroup, bundle: Bundle, bootstrap: string): Promise<ShimConnection> {
  return group.attach(parseBootstrap(bootstrap)).catch((error) => {
    if (!group.runtime.own) throw error;
    return group.start(bundle);
  });
}

/** How often a shim that does not answer is replaced by another before what lives in it is given up. */
const replacementsMax = 4;

/**
 * Asks a shim something within the time. One of ours that is there and does not answer is replaced: its containers live without it. A
 * machine that is too busy is no better with another process, so each has twice the time of the one before.
 */
export async function askLeft<T>(
  group: ShimGroup,
  connection: ShimConnection,
  timeoutMs: number,
  ask: (timeoutMs: number) => Promise<T>,
): Promise<T> {
  let current = connection;
  for (let replaced = 0; ; ) {
    try {
      return await ask(timeoutMs * 2 ** replaced);
    } catch (error) {
      if (current.downgrade(error)) continue;
      if (!group.runtime.own || !hasCode(error, Code.DeadlineExceeded) || replaced >= replacementsMax) throw error;
      await group.replace(current);
      current = await group.connection();
      replaced += 1;
    }
  }
}

/**
 * What `reach` answers; undefined if the shim does not answer, and what was left with it is cleaned up then. Other people's shims
 * have their time; ours is started again if need be, and takes as long as it takes.
 */
export async function unlessLost<T>(
  { groups, log }: LeftBundles,
  what: 'task' | 'sandbox',
  { bundle, own }: { bundle: Bundle; own: boolean },
  reach: Promise<T>,
  cleanUp: () => Promise<void>,
): Promise<T | undefined> {
  try {
    return await (own ? reach : inTime(reach, groups.shims.loadTimeoutMs));
  } catch (error) {
    log.warn(`shim of a ${what} does not answer`, { error, id: bundle.id, namespace: bundle.namespace });
    const cleaning = cleanUp();
    // One that hangs has had its time; the daemon's start waits for it no longer.
    if (own || !hasCode(error, Code.DeadlineExceeded)) await cleaning;
    return undefined;
  }
}

/** Removes the socket that a dead shim of others has left. */
export async function removeLeftSocket(bundle: Bundle, log: Logger): Promise<void> {
  try {
    const text = await readBundleFile(bundle, 'bootstrap.json');
    if (text !== undefined) await removeDeadSocket(parseBootstrap(text).address);
  } catch (error) {
    log.warn('socket of a dead shim cannot be removed', { error, bundle: bundle.path });
  }
}

/** @throws StatusError DeadlineExceeded when the time is up first; what was waited for goes on, and fails unheard */
function inTime<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(deadlineExceeded(`no answer in ${timeoutMs} ms`)), timeoutMs);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
