import type { RestoreSource } from './checkpoint.ts';
import type { RuntimeCommand } from './oci-runtime.ts';

/** What a container is made of, before it has processes. */
export interface ContainerIdentity {
  namespace: string;
  id: string;
  bundle: string;
  runtime: RuntimeCommand;
  /** Whether the shim mounted the rootfs. */
  rootfsMounted: boolean;
  ownPidNamespace: boolean;
  noNewKeyring: boolean;
  /** Kinds of hooks that its spec has. */
  hooks: string[];
  ioUid: number;
  ioGid: number;
  /** It comes from a checkpoint: its process exists once it is started. */
  restore?: RestoreSource;
}
