import { Code, hasCode } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { Logger } from '../../core/log/logger.ts';
import type { MountManager } from '../../core/mounts/mount-manager.ts';
import { contextOf, type RequestContext } from '../../core/request-context.ts';
import type { RuntimePath } from './runtime-path.ts';
import { shimInfo } from './shim-command.ts';

/** A shim's annotation with the mount types it performs itself, joined by commas. */
const allowedMountsAnnotation = 'containerd.io/runtime-allow-mounts';

/**
 * The root file systems of tasks, as far as the mount manager has a part in them: one activation a task, under its id, kept by a
 * reference to the container.
 */
export class RootfsMounts {
  readonly #manager: MountManager;
  readonly #infoTimeoutMs: number;
  readonly #log: Logger;
  /** By shim binary; a shim is asked once. */
  readonly #allowed = new Map<string, Promise<string[]>>();

  constructor(manager: MountManager, infoTimeoutMs: number, log: Logger) {
    this.#manager = manager;
    this.#infoTimeoutMs = infoTimeoutMs;
    this.#log = log;
  }

  /** Performs what the shim cannot; answers what is left for it. */
  async activate(ctx: RequestContext, id: string, rootfs: Mount[], runtime: RuntimePath): Promise<Mount[]> {
    if (rootfs.length === 0) return rootfs;
    try {
      const { system } = await this.#manager.activate(ctx, id, rootfs, {
        labels: { 'containerd.io/gc.bref.container': id },
        allowMountTypes: await this.#allowedBy(runtime),
      });
      return system;
    } catch (error) {
      if (hasCode(error, Code.Unimplemented)) return rootfs;
      if (!hasCode(error, Code.AlreadyExists)) throw error;
      // Left by an earlier task of the same container, which keeps it.
      return (await this.#manager.info(ctx, id)).system;
    }
  }

  #allowedBy(runtime: RuntimePath): Promise<string[]> {
    if (runtime.own) return Promise.resolve([]);
    let known = this.#allowed.get(runtime.path);
    if (!known) {
      known = shimInfo(runtime.path, undefined, this.#infoTimeoutMs).then(
        ({ annotations }) => (annotations[allowedMountsAnnotation] ?? '').split(',').filter((type) => type !== ''),
        (error) => {
          this.#log.error('failed to load runtime info', { error, runtime: runtime.path });
          return [];
        },
      );
      this.#allowed.set(runtime.path, known);
    }
    return known;
  }

  /** Undoes it, if there is one. What cannot be unmounted stays for the collector. */
  async deactivate(namespace: string, id: string): Promise<void> {
    try {
      await this.#manager.deactivate(contextOf(namespace), id);
    } catch (error) {
      if (!hasCode(error, Code.NotFound))
        this.#log.error('failed to deactivate mounts', { error, task: id, namespace });
    }
  }
}
