import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { Code, hasCode } from '@gantry/api';
import { erofsHandler, loopHandler, type Mount, mountAll, unmountAll } from '@gantry/mount';
import { TestingMetadata } from '../metadata/testing-metadata.ts';
import { contextOf } from '../request-context.ts';
import { MetadataMounts } from './metadata-mounts.ts';

/** A mount manager with the daemon's handlers over a database of its own, for tests. */
export class TestingMounts {
  readonly manager: MetadataMounts;
  readonly #meta: TestingMetadata;
  #number = 0;

  private constructor(manager: MetadataMounts, meta: TestingMetadata) {
    this.manager = manager;
    this.#meta = meta;
  }

  /** `directory`: where mounts are made (in `t`), and where `mkfs/` and `mkdir/` may make things. */
  static async open(directory: string): Promise<TestingMounts> {
    const meta = await TestingMetadata.open();
    mkdirSync(directory, { recursive: true });
    const manager = await MetadataMounts.open({
      store: meta.store,
      namespaces: meta.namespaces,
      handlers: new Map([
        ['erofs', erofsHandler],
        ['loop', loopHandler],
      ]),
      targets: path.join(directory, 't'),
      roots: [directory],
      log: meta.log,
      mutated: () => undefined,
    });
    return new TestingMounts(manager, meta);
  }

  /** Performs mounts on a target, whatever they need; answers how to undo it. */
  async mount(mounts: Mount[], target: string): Promise<() => Promise<void>> {
    const ctx = contextOf('test');
    const name = `test-${++this.#number}`;
    const activated = await this.manager.activate(ctx, name, mounts).catch((error) => {
      if (hasCode(error, Code.Unimplemented)) return undefined;
      throw error;
    });
    const undo = async () => {
      await unmountAll(target);
      if (activated) await this.manager.deactivate(ctx, name);
    };
    try {
      await mountAll(activated?.system ?? mounts, target);
      return undo;
    } catch (error) {
      await undo();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#meta.close();
  }
}
