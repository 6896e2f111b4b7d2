import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type MountHandler, removeAllBeneath, unmountAll } from '@gantry/mount';

/**
 * The directories `<root>/<id>` that activations mount in. Mount points are numbered so that the last one made comes first, and
 * `<number>-type` beside each tells its type: enough to undo one without a record.
 */
export class TargetDirectories {
  readonly #root: string;
  readonly #handlers: ReadonlyMap<string, MountHandler>;

  constructor(root: string, handlers: ReadonlyMap<string, MountHandler>) {
    this.#root = root;
    this.#handlers = handlers;
  }

  async prepare(): Promise<void> {
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
  }

  of(id: number): string {
    return path.join(this.#root, String(id));
  }

  async make(id: number): Promise<void> {
    await mkdir(this.of(id), { mode: 0o700 });
  }

  /** A place for one mount of an activation, `left` of which (itself counted) are still to be made. Not made itself. */
  async place(id: number, left: number, count: number, type: string): Promise<string> {
    const name = String(left).padStart(String(count).length, '0');
    await writeFile(path.join(this.of(id), `${name}-type`), type, { mode: 0o600 });
    return path.join(this.of(id), name);
  }

  /** Unmounts all of an activation, the last first, and removes its directory. One that is not there is well. */
  async undo(id: number): Promise<void> {
    const directory = this.of(id);
    const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    const failures: unknown[] = [];
    const numbers = new Set(names.map((name) => name.replace(/-type$/, '')).filter((name) => /^\d+$/.test(name)));
    for (const name of [...numbers].sort((a, b) => Number(a) - Number(b))) {
      try {
        const handler = this.#handlers.get(await typeOf(directory, name));
        const point = path.join(directory, name);
        await (handler ? handler.unmount(point) : unmountAll(point));
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length === 1) throw failures[0];
    if (failures.length > 1) throw new AggregateError(failures, `unmounting ${directory}: ${failures.join('; ')}`);
    await removeAllBeneath(directory);
  }

  /** Numbers of the directories there are. */
  async ids(): Promise<number[]> {
    return (await readdir(this.#root)).filter((name) => /^[1-9]\d*$/.test(name)).map(Number);
  }
}

async function typeOf(directory: string, name: string): Promise<string> {
  try {
    return await readFile(path.join(directory, `${name}-type`), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
