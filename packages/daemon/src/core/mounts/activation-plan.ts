/** Decides which mounts of a list the manager performs, which it only transforms, and which it leaves alone. */
import type { Mount, MountHandler, MountTransformer } from '@gantry/mount';
import type { ActivateOptions } from './mount-manager.ts';

export interface PlannedMount {
  mount: Mount;
  /** In order; each also takes its own prefix off the type. */
  transformers: MountTransformer[];
  /** The type without the prefixes of transformers. */
  type: string;
  handler: MountHandler | undefined;
}

export interface ActivationPlan {
  mounts: PlannedMount[];
  /** How many from the start the manager performs. */
  performed: number;
}

export interface Capabilities {
  handlers: ReadonlyMap<string, MountHandler>;
  transformers: ReadonlyMap<string, MountTransformer>;
}

/**
 * As containerd: a mount with a handler is performed, and everything before it; before one that is to be transformed, all is
 * performed, and itself is performed only if a later one makes it so. undefined: the manager has nothing to do.
 */
export function planActivation(
  mounts: readonly Mount[],
  { handlers, transformers }: Capabilities,
  options: ActivateOptions,
): ActivationPlan | undefined {
  const allowed = new Set(options.allowMountTypes ?? []);
  let performed = -1;
  const planned = mounts.map((mount, index): PlannedMount => {
    const chain: MountTransformer[] = [];
    let type = mount.type;
    for (let slash = type.indexOf('/'); slash >= 0; slash = type.indexOf('/')) {
      const prefix = type.slice(0, slash);
      const transformer = transformers.get(prefix);
      if (!transformer) break;
      if (!allowed.has(`${prefix}/*`) && !allowed.has(mount.type)) performed = index;
      chain.push(transformer);
      type = type.slice(slash + 1);
    }
    const handler = handlers.get(type);
    if (options.temporary || (handler && !allowed.has(type))) performed = index + 1;
    return { mount, transformers: chain, type, handler };
  });
  return performed < 0 ? undefined : { mounts: planned, performed };
}

/** The mount as its transformers leave it, given those before it. */
export async function transform(planned: PlannedMount, before: Parameters<MountTransformer>[1]): Promise<Mount> {
  let { mount } = planned;
  for (const transformer of planned.transformers) {
    mount = await transformer(mount, before);
    mount = { ...mount, type: mount.type.slice(mount.type.indexOf('/') + 1) };
  }
  return mount;
}
