import type { Any } from '@bufbuild/protobuf/wkt';
import type { Descriptor } from '@gantry/oci';
import type { CredentialsProvider, HostsProvider } from '@gantry/registry';
import type { RequestContext } from '../request-context.ts';
import type { ActiveTransfer } from './active-transfers.ts';

/** One report from a transfer under way, in containerd's form. */
export interface TransferProgress {
  /** `waiting`, `downloading`, `extracting`, `complete`, … or, without a name, a sentence on the whole. */
  event: string;
  /** The ref of a piece of content, or the name of an image. */
  name?: string;
  /** Names of what this is part of. */
  parents?: string[];
  /** Bytes. */
  progress?: number;
  total?: number;
  descriptor?: Descriptor;
}

export interface TransferOptions {
  progress?: (progress: TransferProgress) => void;
  /** For callers inside the daemon: logins that are asked for before the daemon's own. */
  credentials?: CredentialsProvider | undefined;
  /** For callers inside the daemon: `config_path` of this transfer, instead of the transferrer's. */
  hostsDirectory?: string | undefined;
  /** For callers inside the daemon: where registries are reached, instead of what directories say. */
  hosts?: HostsProvider | undefined;
  /** For callers inside the daemon: how an image is pulled, where that is not as the daemon is set. */
  pull?: PullOptions | undefined;
  /** For callers inside the daemon. */
  network?: NetworkWatch | undefined;
}

/** Who wants to know whether a pull waits for a registry, or for something else: a place among the downloads, another pull, an unpacking. */
export interface NetworkWatch {
  /** A registry has been asked. */
  begin(): void;
  /** It has sent something. */
  moved(): void;
  /** One for each `begin`. */
  end(): void;
}

export interface PullOptions {
  /** Blobs of the image on their way at once, whatever the daemon's limit for all; 0: no limit. */
  downloads?: number | undefined;
  /** Bytes of a range that layers are asked for in. */
  layerFetchBuffer?: number | undefined;
  /** Each layer's files are on disk before it counts as unpacked. */
  syncFs?: boolean | undefined;
  /** Snapshots of layers are labelled with what remote snapshotters want to know, whether they say that they want it or not. */
  annotateLayers?: boolean | undefined;
}

/** Moves a thing from a source to a destination, both `containerd.types.transfer.*` (or other) messages. */
export interface Transferrer {
  /** What it is moving right now, if it tells. */
  readonly active?: Iterable<ActiveTransfer>;
  /** @throws Unimplemented for a pair it does not know, so that the next transferrer is asked. */
  transfer(ctx: RequestContext, source: Any, destination: Any, options?: TransferOptions): Promise<void>;
}
