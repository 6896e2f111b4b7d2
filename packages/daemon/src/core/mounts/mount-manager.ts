import type { ActiveMount, Mount } from '@gantry/mount';
import type { RequestContext } from '../request-context.ts';

/** A set of mounts under one name: those the manager performed, and those left to whoever wants to see the file system. */
export interface Activation {
  name: string;
  /** Performed by the manager, in order. */
  active: ActiveMount[];
  /** To be performed by the caller, in order; never empty. */
  system: Mount[];
  labels: Record<string, string>;
}

export interface ActivateOptions {
  /** `containerd.io/gc.bref.*` labels keep the activation while what they name lives. */
  labels?: Record<string, string>;
  /** Perform all of them: what is left to the caller is one bind mount. */
  temporary?: boolean;
  /** Mount types, or transformers as `format/*`, that the caller sees to itself, unless a later mount needs the result. */
  allowMountTypes?: readonly string[];
  /** For a call of the daemon's own: nothing else keeps it, and the next daemon undoes it. */
  transient?: boolean;
}

/**
 * Performs the mounts that the system, or a shim, cannot: types with a handler, and those with templates or other
 * transformers. Activations are durable, are held by leases and labels, and go with the garbage collector or by `deactivate`.
 */
export interface MountManager {
  /** @throws Unimplemented if there is nothing for the manager to do; AlreadyExists if the name is taken */
  activate(ctx: RequestContext, name: string, mounts: readonly Mount[], options?: ActivateOptions): Promise<Activation>;
  /** Unmounts and forgets. @throws NotFound */
  deactivate(ctx: RequestContext, name: string): Promise<void>;
  /** @throws NotFound */
  info(ctx: RequestContext, name: string): Promise<Activation>;
  list(ctx: RequestContext, filters?: string[]): Promise<Activation[]>;
}
