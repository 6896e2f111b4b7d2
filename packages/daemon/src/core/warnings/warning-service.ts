import type { Time } from '@gantry/api';

/** Something in use that will go away: shown by `ctr deprecations list`. */
export interface DeprecationWarning {
  /** As `io.containerd.deprecation/cri-registry-mirrors`. */
  id: string;
  /** What it is, since when, until when, and what to use instead. */
  message: string;
  lastOccurrence: Time;
}

/** What the plugin `io.containerd.warning.v1.deprecations` gives. Warnings survive a restart of the daemon. */
export interface WarningService {
  /** Notes that a deprecated thing was used just now. */
  emit(id: string, message: string): Promise<void>;
  /** Every warning, by id. */
  warnings(): DeprecationWarning[];
}
