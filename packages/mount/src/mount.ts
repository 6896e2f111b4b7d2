/**
 * A mount as snapshotters give it and shims perform it: fstab-like strings. `type` `bind` and option strings are containerd's
 * (`rbind`, `ro`, `lowerdir=…`, `X-containerd.*`).
 */
export interface Mount {
  type: string;
  source: string;
  /** A path below the root being mounted; '' or absent for the root itself. */
  target?: string;
  options: string[];
}
