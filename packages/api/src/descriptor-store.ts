/**
 * The packets of a descriptor store's socket (docs/descriptor-store.md): one JSON object each, with the descriptors it speaks of. A shim
 * has its daemon keep what would die with it; the next shim of the same containers takes it.
 */

/** What one kept descriptor is to its process. */
export type DescriptorKind =
  /** The process itself: with it the kernel tells the exit code even to one who comes later. */
  | 'pidfd'
  /** What keeps the process's input from coming to its end. */
  | 'stdin'
  /** The writing end of the pipe that relayed input goes to. */
  | 'stdin-to'
  /** Output that nobody has taken yet: the reading end of a pipe, or a FIFO without a reader. */
  | 'stdout'
  | 'stderr'
  /** Where such output, or a terminal's, goes: its reader would see an end if nobody held it. */
  | 'stdout-to'
  | 'stderr-to'
  /** A terminal's master. */
  | 'terminal';

/** A process by the names that the task API has for it; `exec` is '' for a container's own. */
export interface KeptProcess {
  namespace: string;
  id: string;
  exec: string;
}

/** From a shim. */
export interface DescriptorRequest {
  /** Keep these, one descriptor for each kind, in place of all that was kept for the process before. */
  keep?: KeptProcess & { kinds: DescriptorKind[] };
  /** Close what is kept for a process, or without `exec` for all of a container. */
  drop?: { namespace: string; id: string; exec?: string };
  /** Send what is kept for a container: one `kept` for each process, then `taken`. It stays kept. */
  take?: { namespace: string; id: string };
}

/** From the daemon, in answer to `take`. */
export interface DescriptorAnswer {
  kept?: KeptProcess & {
    kinds: DescriptorKind[];
    /** When the process ended, if that was seen while no shim was there. Seconds as a decimal string, and nanoseconds. */
    exitedAt?: { seconds: string; nanos: number };
  };
  taken?: { namespace: string; id: string };
}

/** The environment variable by which a daemon tells its shims the socket's path. */
export const descriptorStoreVariable = 'GANTRY_DESCRIPTOR_STORE';
