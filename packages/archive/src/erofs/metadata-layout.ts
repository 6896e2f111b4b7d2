/** Gives every inode of a tree its place, then writes them: sizes first, because directories name places. */
import type { ByteString } from '@gantry/sys/fast-at.ts';
import {
  type DirectoryEntry,
  type DirectoryPlan,
  encodeDirectoryBlock,
  encodeInode,
  encodeXattrs,
  INODE_SIZE,
  Layout,
  planDirectory,
  S_IFMT,
  SLOT,
} from './erofs-format.ts';
import { type ErofsNode, isDirectory, isRegular, isSymlink } from './erofs-node.ts';

/** Where bytes go, in order of their positions. */
interface Sink {
  skipTo(position: number): void;
  write(bytes: Buffer): void;
}

interface PlannedInode {
  node: ErofsNode;
  number: number;
  nlink: number;
  /** From the start of the metadata. */
  offset: number;
  layout: Layout;
  size: number;
  xattrs: Buffer;
  directory?: DirectoryPlan;
  /** First block of data that are written with the metadata: directory blocks, or a long link. */
  block: number;
}

export interface MetadataPlan {
  blockSize: number;
  metaBlock: number;
  rootNid: number;
  inodes: PlannedInode[];
  chunked: boolean;
}

export function planMetadata(root: ErofsNode, blockSize: number, metaBlock: number): MetadataPlan {
  const inodes = collect(root, blockSize);
  let chunked = false;
  // Nothing has the number 0, which readdir(3) takes for a hole.
  let offset = INODE_SIZE;
  for (const inode of inodes) {
    const { node, xattrs } = inode;
    const fixed = INODE_SIZE + xattrs.length;
    const tail = inlineTail(inode, blockSize);
    if (node.chunks) {
      chunked = true;
      inode.layout = Layout.chunked;
    } else if (tail > 0 && fixed + tail <= blockSize) {
      inode.layout = Layout.inline;
    }
    offset = Math.ceil(offset / SLOT) * SLOT;
    // What the kernel wants in one block: the inline tail with its inode. The rest is kept so for simpler readers.
    const together = inode.layout === Layout.inline ? fixed + tail : Math.min(fixed, blockSize);
    if ((offset % blockSize) + together > blockSize) offset = Math.ceil(offset / blockSize) * blockSize;
    inode.offset = offset;
    offset += fixed;
    if (inode.layout === Layout.inline) offset += tail;
    if (node.chunks) offset += node.chunks.blocks.length * 4;
  }
  let block = metaBlock + Math.ceil(offset / blockSize);
  for (const inode of inodes) {
    const { directory, node } = inode;
    if (!directory && node.link === undefined) continue;
    const blocks = directory ? directory.blocks.length : Math.ceil((node.link?.length ?? 0) / blockSize);
    inode.block = block;
    block += inode.layout === Layout.inline ? blocks - 1 : blocks;
  }
  return { blockSize, metaBlock, rootNid: inodes[0]!.offset / SLOT, inodes, chunked };
}

/** Bytes that could follow the inode: a link, or the last block of a directory. File data lie in blocks of their own. */
function inlineTail({ node, directory }: PlannedInode, blockSize: number): number {
  if (directory) return directory.tail;
  return node.link !== undefined && node.link.length <= blockSize ? node.link.length : 0;
}

/** Every node once, directories before what is in them, with links counted and directories planned. */
function collect(root: ErofsNode, blockSize: number): PlannedInode[] {
  const found = new Map<ErofsNode, PlannedInode>();
  const add = (node: ErofsNode): PlannedInode => {
    const inode: PlannedInode = {
      node,
      number: found.size + 1,
      nlink: 0,
      offset: 0,
      layout: Layout.plain,
      size: isRegular(node) ? (node.size ?? 0) : (node.link?.length ?? 0),
      xattrs: encodeXattrs(node.xattrs),
      block: 0,
    };
    found.set(node, inode);
    return inode;
  };
  const top = add(root);
  top.nlink = 2;
  const todo: { inode: PlannedInode; parent: PlannedInode }[] = [{ inode: top, parent: top }];
  for (let next = todo.pop(); next; next = todo.pop()) {
    const { inode, parent } = next;
    const entries: DirectoryEntry[] = [entryOf('.', inode), entryOf('..', parent)];
    const below: typeof todo = [];
    for (const [name, child] of inode.node.children ?? []) {
      const planned = found.get(child) ?? add(child);
      entries.push(entryOf(name, planned));
      if (isDirectory(child)) {
        planned.nlink = 2;
        inode.nlink++;
        below.push({ inode: planned, parent: inode });
      } else planned.nlink++;
    }
    // Byte strings compare as their bytes do.
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    inode.directory = planDirectory(entries, blockSize);
    inode.size = inode.directory.size;
    todo.push(...below.reverse());
  }
  return [...found.values()];
}

function entryOf(name: ByteString, inode: PlannedInode): DirectoryEntry {
  return { name, mode: inode.node.mode, nid: () => inode.offset / SLOT };
}

/** Writes what was planned; `start` is the position of the metadata in the image. */
export function encodeMetadata(plan: MetadataPlan, sink: Sink, start: number): void {
  const { blockSize } = plan;
  for (const inode of plan.inodes) {
    sink.skipTo(start + inode.offset);
    sink.write(encodePlanned(inode));
  }
  for (const { node, layout, directory, block } of plan.inodes) {
    if (directory) {
      const whole = layout === Layout.inline ? directory.blocks.slice(0, -1) : directory.blocks;
      for (const [index, entries] of whole.entries()) {
        const bytes = Buffer.alloc(blockSize);
        encodeDirectoryBlock(entries, bytes, 0);
        sink.skipTo((block + index) * blockSize);
        sink.write(bytes);
      }
    } else if (node.link !== undefined && layout === Layout.plain) {
      sink.skipTo(block * blockSize);
      sink.write(Buffer.from(node.link, 'latin1'));
    }
  }
}

function encodePlanned(inode: PlannedInode): Buffer {
  const { node, layout, directory, xattrs } = inode;
  const tail = layout === Layout.inline ? (directory?.tail ?? node.link?.length ?? 0) : 0;
  const map = node.chunks ? node.chunks.blocks.length * 4 : 0;
  const bytes = Buffer.alloc(INODE_SIZE + xattrs.length + tail + map);
  const fields = {
    layout,
    xattrSize: xattrs.length,
    mode: node.mode,
    size: inode.size,
    union: unionOf(inode),
    number: inode.number,
    uid: node.uid,
    gid: node.gid,
    mtime: node.mtime,
    mtimeNanos: node.mtimeNanos,
    nlink: inode.nlink,
  };
  encodeInode(fields, bytes, 0);
  xattrs.copy(bytes, INODE_SIZE);
  const after = INODE_SIZE + xattrs.length;
  if (tail > 0 && directory) encodeDirectoryBlock(directory.blocks.at(-1)!, bytes, after);
  else if (tail > 0) bytes.write(node.link!, after, 'latin1');
  for (const [index, block] of (node.chunks?.blocks ?? []).entries()) bytes.writeUInt32LE(block, after + index * 4);
  return bytes;
}

function unionOf({ node, block }: PlannedInode): number {
  if (isDirectory(node) || isSymlink(node)) return block;
  if (isRegular(node)) return node.chunks ? chunkFormat(node) : (node.block ?? 0);
  return (node.mode & S_IFMT) === 0o020000 || (node.mode & S_IFMT) === 0o060000 ? (node.device ?? 0) : 0;
}

/** The chunk size, as a power of two of blocks. */
function chunkFormat(node: ErofsNode): number {
  return node.chunks!.bits - node.chunks!.blockBits;
}
