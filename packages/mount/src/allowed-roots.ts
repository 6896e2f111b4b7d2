/** The directories that transformers may make things in: a mount comes from a client, and its paths are not to be trusted. */
import { unimplemented } from '@gantry/api';
import { AT_FDCWD, close, hasErrno, O, openat, openat2, RESOLVE } from '@gantry/sys';

export class AllowedRoots {
  readonly #roots: string[];

  /** `roots`: absolute paths of directories that exist when they are used. */
  constructor(roots: readonly string[]) {
    this.#roots = roots.map((root) => root.replace(/\/+$/, ''));
  }

  /**
   * Opens the directory that holds `path`, which has to be beneath an allowed root however links lead, and calls `fn` with its
   * descriptor and the name in it. @throws Unimplemented if no root has it
   */
  async within<T>(path: string, what: string, fn: (parent: number, name: string) => Promise<T>): Promise<T> {
    const root = this.#roots.find((candidate) => path.startsWith(`${candidate}/`));
    const inner = root === undefined ? '' : path.slice(root.length).replace(/^\/+|\/+$/g, '');
    const name = inner.slice(inner.lastIndexOf('/') + 1);
    if (root === undefined || name === '' || name === '.' || name === '..') {
      throw unimplemented(`no root ${JSON.stringify(path)} configured for ${what}: not implemented`);
    }
    const top = openat(AT_FDCWD, root, O.PATH | O.DIRECTORY);
    let parent = -1;
    try {
      const above = inner.slice(0, inner.length - name.length).replace(/\/+$/, '') || '.';
      try {
        parent = openat2(top, above, { flags: O.PATH | O.DIRECTORY, resolve: RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS });
      } catch (error) {
        if (hasErrno(error, 'EXDEV')) throw unimplemented(`${path} leads out of ${root}: not implemented`, error);
        throw error;
      }
      return await fn(parent, name);
    } finally {
      close(top);
      if (parent >= 0) close(parent);
    }
  }
}
