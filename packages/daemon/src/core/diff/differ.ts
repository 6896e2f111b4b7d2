import type { Any } from '@bufbuild/protobuf/wkt';
import type { Mount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { RequestContext } from '../request-context.ts';

export interface ApplyOptions {
  /** fsync the file system afterwards. */
  syncFs?: boolean;
  /** Options of stream processors, by media type of the payload. */
  processorPayloads?: Record<string, Any>;
}

export interface DiffOptions {
  /** Default: gzip'd OCI layer. */
  mediaType?: string;
  /** Ref of the ingest; a random one if absent. */
  ref?: string;
  labels?: Record<string, string>;
  /** Fixed time for entries (seconds since 1970), as SOURCE_DATE_EPOCH. */
  sourceDateEpoch?: bigint;
}

/** Turns layers into files and back. Implementations run the contract suite in `differ-contract.ts`. */
export interface Differ {
  /**
   * Unpacks the layer blob `descriptor` onto `mounts`. Answers the descriptor of the uncompressed layer (its digest is the
   * diff id). @throws Unimplemented for a media type this differ does not know, so that the next one is asked.
   */
  apply(ctx: RequestContext, descriptor: Descriptor, mounts: Mount[], options?: ApplyOptions): Promise<Descriptor>;
  /** Writes the changes from `lower` to `upper` as a layer blob, labelled with its diff id (`containerd.io/uncompressed`). */
  diff(ctx: RequestContext, lower: Mount[], upper: Mount[], options?: DiffOptions): Promise<Descriptor>;
}
