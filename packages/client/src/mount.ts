import type { Mount as WireMount } from '@gantry/api/gen/types/mount_pb.js';

/** A mount as snapshotters give it: to be performed by whoever needs the files. */
export interface Mount {
  /** As `overlay` or `bind`. */
  type: string;
  source: string;
  /** A path below the place where the mounts go; empty for that place itself. */
  target: string;
  options: string[];
}

export function fromWireMount(wire: WireMount): Mount {
  return { type: wire.type, source: wire.source, target: wire.target, options: [...wire.options] };
}
