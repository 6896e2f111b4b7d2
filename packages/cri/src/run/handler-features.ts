import { failedPrecondition, packAny, unimplemented, unpackAny } from '@gantry/api';
import { RuntimeInfoSchema, RuntimeRequestSchema } from '@gantry/api/gen/types/introspection_pb.js';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { TaskRuntime } from '@gantry/daemon/core/tasks/task-runtime.ts';
import { parseJson } from '@gantry/oci';
import { kernelHasRecursiveReadonly } from '../spec/container-mounts.ts';
import { type RuntimeHandler, runtimeName, runtimeOptions } from './runtime-handlers.ts';

/** What pods of a handler can have. */
export interface HandlerFeatures {
  recursiveReadOnlyMounts: boolean;
  userNamespaces: boolean;
}

interface KnownFeatures extends HandlerFeatures {
  /** Mounts with ids of their own; undefined if the runtime says nothing of itself. */
  idmappedMounts: boolean | undefined;
}

/** The part of an OCI runtime's `features` document that is looked at. */
interface RuntimeFeatures {
  mountOptions?: string[];
  linux?: { namespaces?: string[]; mountExtensions?: { idmap?: { enabled?: boolean } } };
}

/** Asks runtimes what they can do, once each. */
export class FeatureLookup {
  readonly #tasks: TaskRuntime;
  readonly #log: Logger;
  readonly #known = new Map<string, Promise<KnownFeatures>>();

  constructor(tasks: TaskRuntime, log: Logger) {
    this.#tasks = tasks;
    this.#log = log;
  }

  async of(handler: RuntimeHandler): Promise<HandlerFeatures> {
    const { recursiveReadOnlyMounts, userNamespaces } = await this.#of(handler);
    return { recursiveReadOnlyMounts, userNamespaces };
  }

  /** Runtimes ignore what they do not know, and files would belong to others than they should. @throws FailedPrecondition */
  async requireIdmappedMounts(handler: RuntimeHandler): Promise<void> {
    if ((await this.#of(handler)).idmappedMounts !== false) return;
    throw failedPrecondition(
      'failed to validate OCI runtime features: idmap mounts not supported: ' +
        'missing `mountExtensions.idmap` entry in `features` command',
    );
  }

  /** @throws Unimplemented if mounts that are read-only all the way down are not to be had */
  async requireRecursiveReadonly(handler: RuntimeHandler, hostPath: string): Promise<void> {
    if ((await this.#of(handler)).recursiveReadOnlyMounts) return;
    throw unimplemented(
      `RROUnsupported: runtime handler does not support recursive read-only mounts (hostPath=${JSON.stringify(hostPath)})`,
    );
  }

  #of(handler: RuntimeHandler): Promise<KnownFeatures> {
    let features = this.#known.get(handler.name);
    if (!features) {
      features = this.#ask(handler).catch((error) => {
        this.#log.warn('features of a runtime are not known', { error, runtime: handler.name });
        // It may be installed later.
        this.#known.delete(handler.name);
        return { recursiveReadOnlyMounts: false, userNamespaces: false, idmappedMounts: undefined };
      });
      this.#known.set(handler.name, features);
    }
    return features;
  }

  async #ask(handler: RuntimeHandler): Promise<KnownFeatures> {
    const options = runtimeOptions(handler);
    const request = packAny(RuntimeRequestSchema, { runtimePath: runtimeName(handler), ...(options && { options }) });
    const { features } = unpackAny(RuntimeInfoSchema, await this.#tasks.pluginInfo(request));
    const found = features ? parseJson<RuntimeFeatures>(features.value) : {};
    const idmap = found.linux?.mountExtensions?.idmap?.enabled === true;
    return {
      idmappedMounts: features ? idmap : undefined,
      recursiveReadOnlyMounts: (found.mountOptions ?? []).includes('rro') && (await kernelHasRecursiveReadonly()),
      userNamespaces: (found.linux?.namespaces ?? []).includes('user') && idmap,
    };
  }
}
