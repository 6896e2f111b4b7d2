import { packAny, unpackAny } from '@gantry/api';
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

/** The part of an OCI runtime's `features` document that is looked at. */
interface RuntimeFeatures {
  mountOptions?: string[];
  linux?: { namespaces?: string[]; mountExtensions?: { idmap?: { enabled?: boolean } } };
}

/** Asks runtimes what they can do, once each. */
export class FeatureLookup {
  readonly #tasks: TaskRuntime;
  readonly #log: Logger;
  readonly #known = new Map<string, Promise<HandlerFeatures>>();

  constructor(tasks: TaskRuntime, log: Logger) {
    this.#tasks = tasks;
    this.#log = log;
  }

  of(handler: RuntimeHandler): Promise<HandlerFeatures> {
    let features = this.#known.get(handler.name);
    if (!features) {
      features = this.#ask(handler).catch((error) => {
        this.#log.warn('features of a runtime are not known', { error, runtime: handler.name });
        // It may be installed later.
        this.#known.delete(handler.name);
        return { recursiveReadOnlyMounts: false, userNamespaces: false };
      });
      this.#known.set(handler.name, features);
    }
    return features;
  }

  async #ask(handler: RuntimeHandler): Promise<HandlerFeatures> {
    const options = runtimeOptions(handler);
    const request = packAny(RuntimeRequestSchema, { runtimePath: runtimeName(handler), ...(options && { options }) });
    const { features } = unpackAny(RuntimeInfoSchema, await this.#tasks.pluginInfo(request));
    const found = features ? parseJson<RuntimeFeatures>(features.value) : {};
    return {
      recursiveReadOnlyMounts: (found.mountOptions ?? []).includes('rro') && (await kernelHasRecursiveReadonly()),
      userNamespaces:
        (found.linux?.namespaces ?? []).includes('user') && found.linux?.mountExtensions?.idmap?.enabled === true,
    };
  }
}
