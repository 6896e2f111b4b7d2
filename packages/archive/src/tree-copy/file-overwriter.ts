import { writeSync } from 'node:fs';
import { invalidArgument } from '@gantry/api';
import { closeFd, Flags, fchmod, fchown, ftruncate } from '@gantry/sys/fast-at.ts';
import type { TarHeader } from '../tar-header.ts';
import type { TarHandler } from '../tar-parser.ts';
import { type IdMaps, outsideId } from './id-maps.ts';
import { checked, openFile, stat } from './rooted-path.ts';

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;

/**
 * Gives a file that is there the bytes of an archive's one file. The file itself stays, so that one that is mounted over another, as
 * /etc/hosts often is, is changed and not replaced.
 */
export class FileOverwriter implements TarHandler {
  readonly #target: { root: number; preserveOwnership?: boolean; ids?: IdMaps };
  readonly #path: string;
  #fd = -1;
  #written = false;

  constructor(target: { root: number; preserveOwnership?: boolean; ids?: IdMaps }, path: string) {
    this.#target = target;
    this.#path = path;
  }

  entry(header: TarHeader): void {
    if (header.type !== '0' || header.sparse || this.#written)
      throw invalidArgument(`/${this.#path} is a file: only an archive of one plain file can be copied there`);
    const { root, ids, preserveOwnership } = this.#target;
    this.#fd = openFile(root, this.#path, Flags.O_WRONLY);
    if ((stat(this.#fd, '', this.#path).mode & S_IFMT) !== S_IFREG)
      throw invalidArgument(`/${this.#path} is neither a directory nor a plain file`);
    this.#written = true;
    checked(ftruncate(this.#fd, 0), 'ftruncate', this.#path);
    if (!preserveOwnership) return;
    checked(fchown(this.#fd, outsideId(ids?.uid, header.uid), outsideId(ids?.gid, header.gid)), 'fchown', this.#path);
    checked(fchmod(this.#fd, header.mode), 'fchmod', this.#path);
  }

  data(bytes: Buffer, start: number, end: number): void {
    for (let at = start; at < end; ) at += writeSync(this.#fd, bytes, at, end - at);
  }

  entryEnd(): void {}

  finish(): void {
    if (!this.#written) throw invalidArgument(`/${this.#path} is a file, and the archive is empty`);
  }

  close(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }
}
