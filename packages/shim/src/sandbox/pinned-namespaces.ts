import { closeSync, mkdirSync, openSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { internal, invalidArgument } from '@gantry/api';
import type { SpecNamespace } from '@gantry/oci';
import { CLONE, hasErrno, linkUp, MNT, MS, mount, setns, umount, unshare } from '@gantry/sys';
import { namespacesDir } from './sandbox-record.ts';

/** Kinds of namespaces that need no process to be there. */
const kinds = {
  network: { file: 'net', flag: CLONE.NEWNET },
  ipc: { file: 'ipc', flag: CLONE.NEWIPC },
  uts: { file: 'uts', flag: CLONE.NEWUTS },
} as const;

export type PinnedKind = keyof typeof kinds;

export function isPinnable(type: string): type is PinnedKind {
  return type in kinds;
}

/** What is set inside new namespaces. */
export interface NamespaceSettings {
  hostname?: string | undefined;
  domainname?: string | undefined;
  sysctl?: Readonly<Record<string, string>> | undefined;
}

/**
 * Makes namespaces and mounts each on a file of the bundle, where they live without a process and outlive this one.
 * @throws StatusError InvalidArgument for settings that none of them has. Nothing is left then.
 */
export async function pinNamespaces(
  bundle: string,
  types: readonly PinnedKind[],
  settings: NamespaceSettings,
): Promise<SpecNamespace[]> {
  const writes = settingWrites(types, settings);
  if (types.length === 0) return [];
  const directory = namespacesDir(bundle);
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  const made = makeNamespaces(types, writes);
  try {
    const pinned: SpecNamespace[] = [];
    for (const [index, type] of types.entries()) {
      const file = path.join(directory, kinds[type].file);
      writeFileSync(file, '', { mode: 0o444 });
      // The path is looked up by another thread of this process, which has the same descriptors.
      await mount(`/proc/self/fd/${made[index]}`, file, '', MS.BIND, '');
      pinned.push({ type, path: file });
    }
    return pinned;
  } catch (error) {
    await unpinNamespaces(bundle);
    throw error;
  } finally {
    for (const fd of made) closeSync(fd);
  }
}

/**
 * A descriptor for each. The main thread itself goes into the new namespaces and comes back without a break, so nothing else
 * of this process runs meanwhile; children and other threads keep to the old ones.
 */
function makeNamespaces(types: readonly PinnedKind[], writes: readonly [string, string][]): number[] {
  const here = types.map((type) => openSync(`/proc/thread-self/ns/${kinds[type].file}`, 'r'));
  const made: number[] = [];
  try {
    unshare(types.reduce((flags, type) => flags | kinds[type].flag, 0));
    try {
      if (types.includes('network')) linkUp('lo');
      for (const [file, value] of writes) writeFileSync(file, value);
      for (const type of types) made.push(openSync(`/proc/thread-self/ns/${kinds[type].file}`, 'r'));
      return made;
    } finally {
      comeBack(types, here);
    }
  } catch (error) {
    for (const fd of made) closeSync(fd);
    throw error;
  } finally {
    for (const fd of here) closeSync(fd);
  }
}

function comeBack(types: readonly PinnedKind[], here: readonly number[]): void {
  try {
    for (const [index, type] of types.entries()) setns(here[index]!, kinds[type].flag);
  } catch (error) {
    // In a network that is not ours nothing could be served: the next shim takes the containers over.
    process.stderr.write(`cannot come back from new namespaces: ${(error as Error).message}\n`);
    process.kill(process.pid, 'SIGKILL');
    throw internal('cannot come back from new namespaces', error);
  }
}

const sysctlName = /^[\w-]+(\.[\w-]+(\/[\w-]+)*)+$/;
const ipcSysctls = /^(kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+)$/;

/** Files beneath /proc/sys and what is written there. Only such as belong to one of the namespaces. */
function settingWrites(
  types: readonly PinnedKind[],
  { hostname, domainname, sysctl = {} }: NamespaceSettings,
): [string, string][] {
  const writes: [string, string][] = [];
  if (types.includes('uts')) {
    if (hostname) writes.push(['/proc/sys/kernel/hostname', hostname]);
    if (domainname) writes.push(['/proc/sys/kernel/domainname', domainname]);
  }
  for (const [name, value] of Object.entries(sysctl)) {
    const allowed =
      sysctlName.test(name) &&
      ((types.includes('network') && name.startsWith('net.')) || (types.includes('ipc') && ipcSysctls.test(name)));
    if (!allowed) throw invalidArgument(`sysctl "${name}" is not in a separate kernel namespace`);
    // `net.ipv4.conf.eth0/1.x` is of the interface `eth0.1`.
    writes.push([`/proc/sys/${name.replace(/[./]/g, (sign) => (sign === '.' ? '/' : '.'))}`, value]);
  }
  return writes;
}

/** Lets go of a bundle's namespaces: they end with the last process in them. What is not there is well. */
export async function unpinNamespaces(bundle: string): Promise<void> {
  const directory = namespacesDir(bundle);
  let files: string[];
  try {
    files = readdirSync(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return;
    throw error;
  }
  for (const name of files) {
    const file = path.join(directory, name);
    try {
      await umount(file, MNT.DETACH | MNT.UMOUNT_NOFOLLOW);
    } catch (error) {
      if (!hasErrno(error, 'EINVAL', 'ENOENT')) throw error;
    }
    rmSync(file, { force: true });
  }
  rmdirSync(directory);
}
