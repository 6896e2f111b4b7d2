/** Mount options as containerd writes them, sorted into what mount(2) takes as flags, what the filesystem reads, and the rest. */
import { invalidArgument } from '@gantry/api';
import { type IdMapping, MS } from '@gantry/sys';

/** Options sorted. */
export interface ParsedOptions {
  /** MS flags without propagation. */
  flags: number;
  /** The filesystem's own options, in their order. */
  data: string[];
  /** MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, with MS_REC; 0 for none. */
  propagation: number;
  /** The source is a file to be attached to a loop device first. */
  losetup: boolean;
  idmap?: { uid: IdMapping[]; gid: IdMapping[] };
}

const set: Record<string, number> = {
  bind: MS.BIND,
  rbind: MS.BIND | MS.REC,
  dirsync: MS.DIRSYNC,
  lazytime: MS.LAZYTIME,
  mand: MS.MANDLOCK,
  noatime: MS.NOATIME,
  nodev: MS.NODEV,
  nodiratime: MS.NODIRATIME,
  noexec: MS.NOEXEC,
  nosuid: MS.NOSUID,
  nosymfollow: MS.NOSYMFOLLOW,
  relatime: MS.RELATIME,
  remount: MS.REMOUNT,
  ro: MS.RDONLY,
  strictatime: MS.STRICTATIME,
  sync: MS.SYNCHRONOUS,
};

const clear: Record<string, number> = {
  async: MS.SYNCHRONOUS,
  atime: MS.NOATIME,
  defaults: 0,
  dev: MS.NODEV,
  diratime: MS.NODIRATIME,
  exec: MS.NOEXEC,
  nolazytime: MS.LAZYTIME,
  nomand: MS.MANDLOCK,
  norelatime: MS.RELATIME,
  nostrictatime: MS.STRICTATIME,
  rw: MS.RDONLY,
  suid: MS.NOSUID,
  symfollow: MS.NOSYMFOLLOW,
};

const propagations: Record<string, number> = {
  private: MS.PRIVATE,
  rprivate: MS.PRIVATE | MS.REC,
  shared: MS.SHARED,
  rshared: MS.SHARED | MS.REC,
  slave: MS.SLAVE,
  rslave: MS.SLAVE | MS.REC,
  unbindable: MS.UNBINDABLE,
  runbindable: MS.UNBINDABLE | MS.REC,
};

const own = (table: Record<string, number>, name: string) => (Object.hasOwn(table, name) ? table[name] : undefined);

/** `container:host:size`, several joined by commas. Throws InvalidArgument for anything else. */
export function parseIdMapping(text: string): IdMapping[] {
  return text.split(',').map((part) => {
    const match = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(part);
    const [container, host, size] = (match ?? []).slice(1).map(Number);
    const top = 2 ** 32;
    if (container === undefined || host === undefined || !size || container + size > top || host + size > top) {
      throw invalidArgument(`invalid id mapping: ${JSON.stringify(part)}`);
    }
    return { container, host, size };
  });
}

/** Sorts options. `X-containerd.*` is for containerd itself and is left out; unknown words go to the filesystem. */
export function parseMountOptions(options: readonly string[]): ParsedOptions {
  const parsed: ParsedOptions = { flags: 0, data: [], propagation: 0, losetup: false };
  let uid: IdMapping[] | undefined;
  let gid: IdMapping[] | undefined;
  for (const option of options) {
    const on = own(set, option);
    const off = own(clear, option);
    const propagation = own(propagations, option);
    if (on !== undefined) parsed.flags |= on;
    else if (off !== undefined) parsed.flags &= ~off;
    else if (propagation !== undefined) parsed.propagation = propagation;
    else if (option === 'loop') parsed.losetup = true;
    else if (option.startsWith('uidmap=')) uid = parseIdMapping(option.slice(7));
    else if (option.startsWith('gidmap=')) gid = parseIdMapping(option.slice(7));
    else if (option !== '' && !option.startsWith('X-containerd.')) parsed.data.push(option);
  }
  if (uid || gid) {
    if (!uid || !gid) throw invalidArgument('an idmapped mount needs both uidmap and gidmap');
    parsed.idmap = { uid, gid };
  }
  return parsed;
}
