// What containerd's metadata hold, as they hold it. Times are undefined where containerd has Go's zero time.
import type { Any } from '@bufbuild/protobuf/wkt';
import type { Time } from '@gantry/api';

type Labels = Record<string, string>;

interface Dated {
  readonly createdAt: Time | undefined;
  readonly updatedAt: Time | undefined;
}

export interface ImageRecord extends Dated {
  readonly name: string;
  readonly labels: Labels;
  readonly target: {
    readonly mediaType: string;
    readonly digest: string;
    /** In bytes. */
    readonly size: bigint;
    readonly annotations: Labels;
  };
}

export interface RuntimeRecord {
  readonly name: string;
  readonly options: Any | undefined;
}

export interface ContainerRecord extends Dated {
  readonly id: string;
  readonly labels: Labels;
  readonly image: string;
  readonly runtime: RuntimeRecord;
  readonly spec: Any | undefined;
  readonly snapshotter: string;
  readonly snapshotKey: string;
  readonly extensions: Record<string, Any>;
  /** Empty if it is in no sandbox. */
  readonly sandbox: string;
}

export interface BlobRecord extends Dated {
  readonly digest: string;
  /** In bytes. */
  readonly size: bigint;
  readonly labels: Labels;
}

/** A blob that was being written. */
export interface IngestRecord {
  /** As clients call it. */
  readonly ref: string;
  /** As the content store calls it. */
  readonly backendRef: string;
  /** The digest it is to have; empty if that was not said. */
  readonly expected: string;
  readonly expireAt: Time | undefined;
}

export interface SnapshotRecord extends Dated {
  readonly snapshotter: string;
  /** As clients call it. */
  readonly key: string;
  /** As the snapshotter calls it: `<namespace>/<number>/<key>`. */
  readonly backendName: string;
  /** A key; empty if it has none. */
  readonly parent: string;
  readonly children: readonly string[];
  readonly labels: Labels;
}

export interface LeaseRecord {
  readonly id: string;
  readonly createdAt: Time | undefined;
  readonly labels: Labels;
  /** Types as the leases service writes them: `content`, `ingests`, `images`, `snapshots/overlayfs`. */
  readonly resources: readonly { readonly type: string; readonly id: string }[];
}

export interface SandboxRecord extends Dated {
  readonly id: string;
  readonly labels: Labels;
  readonly runtime: RuntimeRecord;
  readonly spec: Any | undefined;
  readonly sandboxer: string;
  readonly extensions: Record<string, Any>;
}

export interface NamespaceRecord {
  readonly name: string;
  readonly labels: Labels;
  readonly images: readonly ImageRecord[];
  readonly containers: readonly ContainerRecord[];
  readonly content: readonly BlobRecord[];
  readonly ingests: readonly IngestRecord[];
  readonly snapshots: readonly SnapshotRecord[];
  readonly leases: readonly LeaseRecord[];
  readonly sandboxes: readonly SandboxRecord[];
}

export interface ContainerdMetadata {
  /** containerd's number for the revision of its schema: 3 in 1.6, 4 in 2.3. */
  readonly version: number;
  readonly namespaces: readonly NamespaceRecord[];
}
