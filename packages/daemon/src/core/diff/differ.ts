import type { Any } from '@bufbuild/protobuf/wkt';
import type { Mount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { RequestContext } from '../request-context.ts';

/** A blob that is being written to a local file while it is read. */
export interface GrowingBlob {
  /** Can be opened until `complete` settles. */
  readonly path: string;
  /** Calls back at once, and whenever more bytes are there, with how many from the start; the answer stops it. */
  onGrowth(listener: (available: number) => void): () => void;
  /** Settles when all bytes are there; rejects if they will not come. */
  readonly complete: Promise<void>;
}

export interface ApplyOptions {
  /**
   * The layers below are not there yet: fail with FailedPrecondition if the layer cannot be unpacked without seeing them
   * (it leaves out directories that they may have, or links into them).
   */
  standalone?: boolean;
  /** fsync the file system afterwards. */
  syncFs?: boolean;
  /** Told now and then how many of the blob's bytes have been read. */
  onProgress?: (read: number) => void;
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
  /** Layers have to come from the bottom up: it refuses `standalone`. */
  readonly bottomUp?: boolean;
  /**
   * Unpacks the layer blob `descriptor` onto `mounts`. Answers the descriptor of the uncompressed layer (its digest is the
   * diff id). @throws Unimplemented for a media type this differ does not know, so that the next one is asked.
   */
  apply(ctx: RequestContext, descriptor: Descriptor, mounts: Mount[], options?: ApplyOptions): Promise<Descriptor>;
  /** The same while the blob is still coming. Absent: this differ waits for the whole blob. */
  applyGrowing?(
    ctx: RequestContext,
    descriptor: Descriptor,
    blob: GrowingBlob,
    mounts: Mount[],
    options?: ApplyOptions,
  ): Promise<Descriptor>;
  /** The same for a layer that is a local file and no blob, whatever it is compressed with. */
  applyFile?(ctx: RequestContext, file: string, mounts: Mount[]): Promise<void>;
  /** Writes the changes from `lower` to `upper` as a layer blob, labelled with its diff id (`containerd.io/uncompressed`). */
  diff(ctx: RequestContext, lower: Mount[], upper: Mount[], options?: DiffOptions): Promise<Descriptor>;
}
