/** Job `pack-tree`: a tar of one path of somebody else's tree, such as a container's, for copying it out. */
import { readSync } from 'node:fs';
import type { MessagePort } from 'node:worker_threads';
import { aborted, unimplemented } from '@gantry/api';
import { type ByteString, closeFd, type FastStat, Flags, openAt, readlinkAt } from '@gantry/sys/fast-at.ts';
import { statfs } from '@gantry/sys/files.ts';
import type { JobContext } from '../job.ts';
import { PortSender } from '../port-chunks.ts';
import { listNames } from '../remove-tree.ts';
import { splitPath } from '../rooted-directories.ts';
import { encodeTarHeader, type TarEntry, tarEnd, tarPadding } from '../tar-encode.ts';
import { type IdMaps, insideId } from './id-maps.ts';
import { checked, openDirectory, rootedPath, stat } from './rooted-path.ts';

export interface PackTreeParams {
  /** Descriptor of the tree's root directory. The caller closes it. */
  root: number;
  /** Links on the way are followed; one that the path ends with is taken as a link, unless a slash comes after it. */
  path: string;
  /** The name that it has in the archive. Default: the path's last; for the root itself, none. */
  name?: string;
  /** Of a directory only itself. */
  noWalk?: boolean;
  ids?: IdMaps;
  /** Where the archive goes, as `chunksFromPort` reads it. */
  port: MessagePort;
}

const S_IFMT = 0o170000;
const types = new Map([
  [0o100000, '0'],
  [0o040000, '5'],
  [0o120000, '2'],
  [0o020000, '3'],
  [0o060000, '4'],
  [0o010000, '6'],
]);

const piece = 256 << 10;
/** Files of the kernel's own say a size of zero: of those no more is read than this. */
const kernelFileMax = 1 << 20;
/** Magic numbers of file systems that are not files: proc, sysfs, cgroups, debugfs, tracefs, bpf, devpts, securityfs, mqueue. */
const kernelFileSystems = new Set([
  0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0xcafe4a11, 0x1cd1, 0x73636673, 0x19800202,
]);

export async function packTree(params: PackTreeParams, context: JobContext): Promise<void> {
  const sender = new PortSender(params.port);
  try {
    await new TreePacker(params, sender, context.signal).pack();
    await sender.send(tarEnd());
    sender.end();
  } catch (error) {
    sender.end(error as Error);
    throw error;
  }
}

class TreePacker {
  readonly #params: PackTreeParams;
  readonly #sender: PortSender;
  readonly #signal: AbortSignal;
  readonly #buffer = Buffer.allocUnsafeSlow(piece);
  /** Names of files that have several, by device and inode. */
  readonly #links = new Map<string, ByteString>();

  constructor(params: PackTreeParams, sender: PortSender, signal: AbortSignal) {
    this.#params = params;
    this.#sender = sender;
    this.#signal = signal;
  }

  async pack(): Promise<void> {
    const { root } = this.#params;
    const path = rootedPath(this.#params.path);
    const [parent, base] = splitPath(path);
    const name = this.#params.name === undefined ? base : rootedPath(this.#params.name);
    const isDirectory = this.#params.path.endsWith('/');
    const fd = checked(openDirectory(root, isDirectory ? path : parent), 'open', path);
    const entry = isDirectory ? '' : base;
    try {
      await this.#entry(fd, entry, name || '.', stat(fd, entry, path), true);
    } finally {
      closeFd(fd);
    }
  }

  async #entry(dirfd: number, name: ByteString, path: ByteString, found: FastStat, first: boolean): Promise<void> {
    this.#signal.throwIfAborted();
    const type = types.get(found.mode & S_IFMT);
    if (type === undefined) {
      // Sockets cannot be in an archive.
      if (first) throw unimplemented('a socket cannot be copied');
      return;
    }
    const { ids } = this.#params;
    const entry: TarEntry = {
      type,
      path: type === '5' ? `${path}/` : path,
      mode: found.mode & 0o7777,
      uid: insideId(ids?.uid, found.uid),
      gid: insideId(ids?.gid, found.gid),
      mtime: found.mtime,
    };
    const linked = found.nlink > 1 && type === '0' ? `${found.devMajor}:${found.devMinor}:${found.ino}` : undefined;
    const earlier = linked === undefined ? undefined : this.#links.get(linked);
    if (earlier !== undefined) return this.#send(encodeTarHeader({ ...entry, type: '1', linkPath: earlier }));
    if (linked !== undefined) this.#links.set(linked, path);
    switch (type) {
      case '0':
        return this.#file(dirfd, name, entry);
      case '5':
        await this.#send(encodeTarHeader(entry));
        return first && this.#params.noWalk ? undefined : this.#directory(dirfd, name, path, first);
      case '2': {
        const target = readlinkAt(dirfd, name);
        if (typeof target === 'number') checked(target, 'readlink', path);
        return this.#send(encodeTarHeader({ ...entry, linkPath: target as ByteString }));
      }
      default:
        return this.#send(encodeTarHeader({ ...entry, devMajor: found.rdevMajor, devMinor: found.rdevMinor }));
    }
  }

  async #directory(dirfd: number, name: ByteString, path: ByteString, first: boolean): Promise<void> {
    const flags = Flags.O_DIRECTORY | Flags.O_NOFOLLOW;
    const fd = checked(openAt(dirfd, name || '.', flags), 'open', path);
    try {
      // What the kernel shows as files below a directory that was asked for is not part of it.
      if (!first && kernelFileSystems.has(statfs(fd).type)) return;
      for (const child of listNames(fd).sort()) {
        const found = stat(fd, child, `${path}/${child}`);
        await this.#entry(fd, child, path === '.' ? child : `${path}/${child}`, found, false);
      }
    } finally {
      closeFd(fd);
    }
  }

  async #file(dirfd: number, name: ByteString, entry: TarEntry): Promise<void> {
    const fd = checked(openAt(dirfd, name, Flags.O_NOFOLLOW | Flags.O_NONBLOCK), 'open', entry.path);
    try {
      // Asked again: what is read is this file, whatever has the name by now.
      const { size, mode } = stat(fd, '', entry.path);
      if ((mode & S_IFMT) !== 0o100000) throw aborted(`/${entry.path} changed its kind while it was read`);
      if (size === 0 && kernelFileSystems.has(statfs(fd).type)) return await this.#kernelFile(fd, entry);
      await this.#send(encodeTarHeader({ ...entry, size }));
      for (let left = size; left > 0; ) {
        this.#signal.throwIfAborted();
        const count = readSync(fd, this.#buffer, 0, Math.min(left, piece), null);
        if (count === 0) throw aborted(`/${entry.path} became shorter while it was read`);
        await this.#send(this.#buffer.subarray(0, count));
        left -= count;
      }
      await this.#send(Buffer.alloc(tarPadding(size)));
    } finally {
      closeFd(fd);
    }
  }

  async #kernelFile(fd: number, entry: TarEntry): Promise<void> {
    const parts: Buffer[] = [];
    let size = 0;
    for (let count = 1; count > 0 && size < kernelFileMax; size += count) {
      count = readSync(fd, this.#buffer, 0, Math.min(piece, kernelFileMax - size), null);
      parts.push(Buffer.from(this.#buffer.subarray(0, count)));
    }
    await this.#send(encodeTarHeader({ ...entry, size }));
    await this.#send(Buffer.concat([...parts, Buffer.alloc(tarPadding(size))]));
  }

  async #send(bytes: Buffer): Promise<void> {
    if (bytes.length > 0) await this.#sender.send(bytes);
  }
}
