/** What the mount manager is made of: handlers that perform mounts of their own types, and transformers that change mounts first. */
import type { Time } from '@gantry/api';
import type { Mount } from './mount.ts';

/** A mount that the mount manager holds. */
export interface ActiveMount {
  mount: Mount;
  mountedAt: Time;
  /** Where it is: a directory, or for a device (`loop`) a symbolic link to it. */
  mountPoint: string;
  /** What the handler tells of it to the mounts that follow. */
  data?: Record<string, string>;
}

/** Performs mounts of a type that the system does not know, or does better than it. */
export interface MountHandler {
  /** Performs `mount` at `mountPoint`, which is not there yet; its parent is. `before`: the mounts of the same activation so far. */
  mount(mount: Mount, mountPoint: string, before: readonly ActiveMount[]): Promise<ActiveMount>;
  /** Undoes it. What is not mounted, or not there, is well: also called for what a killed daemon left half-made. */
  unmount(mountPoint: string): Promise<void>;
  /** Whether `mountPoint` still is what was mounted. `points`: everything mounted at the moment. */
  isMounted(mountPoint: string, points: ReadonlySet<string>): Promise<boolean>;
}

/** Changes a mount by its `<transformer>/` prefix before it is performed. */
export type MountTransformer = (mount: Mount, before: readonly ActiveMount[]) => Promise<Mount>;
