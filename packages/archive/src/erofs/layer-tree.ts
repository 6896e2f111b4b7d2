/**
 * The files of one layer as a tree in memory, made from tar entries by the rules by which `LayerApplier` fills the upper directory of
 * an overlay: links in the layer are followed, never out of it; whiteouts become the overlay's own marks.
 */
import { constants } from 'node:os';
import { type ByteString, errnoError } from '@gantry/sys/fast-at.ts';
import { cleanPath, splitPath } from '../rooted-directories.ts';
import { TarError } from '../tar-header.ts';
import { type ErofsNode, isDirectory, isSymlink, isWhiteout, markOpaque, newDirectory } from './erofs-node.ts';

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
const WHITEOUT_META = '.wh..wh.';
const MAX_LINKS = 255;

/** Where an entry goes. */
export interface EntryPlace {
  /** Clean path of the entry. */
  path: ByteString;
  parent: ErofsNode;
  base: ByteString;
}

export class LayerTree {
  readonly root = newDirectory();
  /** Called for a directory that the layer does not have and an entry needs: it may make it like the one below. */
  readonly #onImplied: (path: ByteString, made: ErofsNode) => void;
  /** Directories by clean path, until one or a link is replaced. */
  readonly #known = new Map<ByteString, ErofsNode>();

  constructor(onImplied: (path: ByteString, made: ErofsNode) => void = () => {}) {
    this.#onImplied = onImplied;
  }

  /**
   * Finds where an entry goes, making directories on the way. undefined for one that makes no file: the root itself, a whiteout
   * (which is noted in the tree), or what is to be ignored.
   */
  place(name: ByteString, owner: { uid: number; gid: number }): EntryPlace | undefined {
    if (name.startsWith('\0')) throw new TarError('invalid tar header: name');
    const path = cleanPath(name);
    if (path === '' || name.length > 1 << 20) return undefined;
    const [above, base] = splitPath(path);
    if (base.length > 255) throw errnoError(-constants.errno.ENAMETOOLONG, 'open', path);
    if (path.startsWith(WHITEOUT_META) && base !== OPAQUE) return undefined;
    const parent = this.#directory(above);
    if (!base.startsWith(WHITEOUT)) return { path, parent, base };
    if (base !== OPAQUE) this.#whiteout(parent, base.slice(WHITEOUT.length), owner);
    else if (parent !== this.root) markOpaque(parent);
    return undefined;
  }

  /** Puts a file at its place, in the stead of what was there. */
  put({ path, parent, base }: EntryPlace, node: ErofsNode): void {
    const before = parent.children!.get(base);
    if (before && (isDirectory(before) || isSymlink(before))) this.#known.clear();
    // What a whiteout hid must not shine through the directory that takes its name.
    if (before && isWhiteout(before) && isDirectory(node)) markOpaque(node);
    parent.children!.set(base, node);
    if (isDirectory(node)) this.#known.set(path, node);
  }

  /** What a path names, itself and not what a link leads to; undefined if the layer does not have it. */
  find(name: ByteString): ErofsNode | undefined {
    const path = cleanPath(name);
    const [above, base] = splitPath(path);
    if (path === '') return this.root;
    const parent = this.#walk(above, false);
    const node = parent?.children?.get(base);
    return node && !isWhiteout(node) ? node : undefined;
  }

  #directory(path: ByteString): ErofsNode {
    const known = path === '' ? this.root : this.#known.get(path);
    if (known) return known;
    const [above, base] = splitPath(path);
    // Most often one is missing below one that is known.
    const near = above === '' ? this.root : this.#known.get(above);
    const here = near?.children?.get(base);
    const found = here && isDirectory(here) ? here : this.#walk(path, true)!;
    this.#known.set(path, found);
    return found;
  }

  #walk(path: ByteString, create: boolean): ErofsNode | undefined {
    const stack: { node: ErofsNode; path: ByteString }[] = [{ node: this.root, path: '' }];
    const todo = path.split('/').reverse();
    let links = 0;
    for (let part = todo.pop(); part !== undefined; part = todo.pop()) {
      if (part === '' || part === '.') continue;
      if (part === '..') {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const at = stack.at(-1)!;
      const child = at.node.children!.get(part);
      if (child && isSymlink(child)) {
        if (++links > MAX_LINKS) throw errnoError(-constants.errno.ELOOP, 'open', path);
        const target = child.link!;
        if (target.startsWith('/')) stack.length = 1;
        todo.push(...target.split('/').reverse());
        continue;
      }
      if (child && isDirectory(child)) {
        stack.push({ node: child, path: at.path === '' ? part : `${at.path}/${part}` });
        continue;
      }
      if (!create) return undefined;
      if (child && !isWhiteout(child)) throw errnoError(-constants.errno.ENOTDIR, 'open', path);
      stack.push(this.#makeImplied(at, part, child !== undefined));
    }
    return stack.at(-1)!.node;
  }

  #makeImplied(
    at: { node: ErofsNode; path: ByteString },
    base: ByteString,
    hidden: boolean,
  ): { node: ErofsNode; path: ByteString } {
    const node = newDirectory();
    const path = at.path === '' ? base : `${at.path}/${base}`;
    at.node.children!.set(base, node);
    if (hidden) markOpaque(node);
    else this.#onImplied(path, node);
    return { node, path };
  }

  /** A whiteout is about the layers below: what this layer itself has stays, and a directory of it hides the one below. */
  #whiteout(parent: ErofsNode, name: ByteString, { uid, gid }: { uid: number; gid: number }): void {
    if (name === '' || name === '.' || name === '..') throw new TarError(`invalid whiteout name ${WHITEOUT}${name}`);
    const existing = parent.children!.get(name);
    if (!existing) {
      parent.children!.set(name, { mode: 0o020000, uid, gid, mtime: 0, mtimeNanos: 0, device: 0 });
    } else if (isDirectory(existing)) markOpaque(existing);
  }
}
