// Whole images on the move: daemons from containerd 1.7 on pull, push, import and export by themselves and tell how it goes.
import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { internal, packAny, StatusError, type Time, toTimestamp, unpackAny } from '@gantry/api';
import { ImageExportSchema, RegistrySchema } from '@gantry/api/gen/gantry/transfer/v1/transfer_pb.js';
import { Transfer as TransferService } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import { ImageExportStreamSchema, ImageImportStreamSchema } from '@gantry/api/gen/types/transfer/importexport_pb.js';
import { ProgressSchema } from '@gantry/api/gen/types/transfer/progress_pb.js';
import {
  AuthRequestSchema,
  AuthResponseSchema,
  AuthType,
  HTTPDebug,
  OCIRegistrySchema,
} from '@gantry/api/gen/types/transfer/registry_pb.js';
import { type Descriptor, defaultPlatform, fromWireDescriptor, type Platform } from '@gantry/oci';
import { type CallOptions, type Client, createClient, type Transport } from '@gantry/rpc';
import {
  type CopyFromContainerOptions,
  type CopyToContainerOptions,
  copyFromContainer,
  copyToContainer,
} from './container-files.ts';
import { toWirePlatform } from './platform.ts';
import { NamedStream, receiveBytes, receiveMoved, sendBytes, streamId } from './streams.ts';
import {
  type DiffSnapshotOptions,
  diffSnapshot,
  type SnapshotDiff,
  type UnpackedLayer,
  type UnpackLayerOptions,
  unpackLayer,
} from './transfer-layers.ts';

/** How far one thing of a transfer is. */
export interface TransferProgress {
  /** As `downloading`, `complete`, `extracting`, `saved`. */
  readonly event: string;
  readonly name: string;
  readonly parents: readonly string[];
  /** Bytes done. */
  readonly progress: number;
  /** Bytes in all; 0 if not known. */
  readonly total: number;
  readonly descriptor: Descriptor | undefined;
}

/** What a registry asks of a user. */
export interface CredentialsRequest {
  readonly host: string;
  readonly reference: string;
  readonly wwwAuthenticate: readonly string[];
}

/** A user name with its password, a token that buys others, or the whole Authorization header. */
export type Credentials =
  | { username: string; password: string; expiresAt?: Time }
  | { refreshToken: string; expiresAt?: Time }
  | { header: string; expiresAt?: Time };

export interface TransferOptions extends CallOptions {
  onProgress?: (progress: TransferProgress) => void;
}

/** How to talk to a registry. */
export interface RegistryOptions {
  /** Called when a registry asks; undefined means: as nobody. */
  credentials?: (request: CredentialsRequest) => Credentials | undefined | Promise<Credentials | undefined>;
  headers?: Record<string, string>;
  /** A `certs.d` directory with hosts.toml files, at the daemon. */
  hostsDirectory?: string;
  /** `http` or `https` where no hosts file says. */
  defaultScheme?: 'http' | 'https';
  /** Gets the daemon's record of its requests. */
  onLog?: (text: string) => void;
  /** Blobs on their way at once; the daemon's own limit holds as well. Gantry only. */
  maxConcurrentTransfers?: number;
  /** Layers larger than this many bytes are fetched in ranges of this size, several at once. Gantry only. */
  layerFetchBuffer?: number;
}

/** Which parts of an image go along, and under which names they come. */
export interface ImageSelection {
  /** Default: the daemon's own platform. */
  platforms?: Platform[];
  labels?: Record<string, string>;
  /** Also the manifests and configs of platforms whose layers stay away. */
  allMetadata?: boolean;
}

export interface PullOptions extends TransferOptions, RegistryOptions, ImageSelection {
  /** The name in the image store. Default: the reference. */
  name?: string;
  /** Unpack what was pulled. Default true: for the platforms given, or else the one of this machine. */
  unpack?: boolean;
  /** Default: the daemon's default. */
  snapshotter?: string;
}

export interface PushOptions extends TransferOptions, RegistryOptions, Pick<ImageSelection, 'platforms'> {
  /** The name in the image store. Default: the reference. */
  name?: string;
}

export interface ImportOptions extends TransferOptions, ImageSelection {
  /** The name of the index of all that came. */
  indexName?: string;
  /** Take only images whose name in the archive begins so. Default: all of them. */
  prefix?: string;
  /** Images also get the name of the prefix (default: `import-` and the date) and their digest. */
  digests?: boolean;
  /** With `digests`: not those that have a name. */
  skipDigestForNamed?: boolean;
  mediaType?: string;
  /** Compress layers that are not. */
  compress?: boolean;
  /** Unpack what came. */
  unpack?: boolean;
  snapshotter?: string;
}

export interface ExportOptions extends TransferOptions {
  platforms?: Platform[];
  allPlatforms?: boolean;
  mediaType?: string;
  /** Leave out Docker's manifest.json. */
  skipDockerManifest?: boolean;
  /** Leave out layers that may not be passed on. */
  skipNonDistributable?: boolean;
  /** Leave out images of an index that the store does not have whole, instead of failing. Gantry only. */
  skipMissing?: boolean;
}

export interface MirrorOptions extends TransferOptions {
  /** How to talk to the registry that has the image. */
  source?: RegistryOptions;
  /** How to talk to the one that gets it. */
  destination?: RegistryOptions;
  /** Only these images of an index, in an index of their own. Default: all. */
  platforms?: Platform[];
  /** Further tags in the destination's repository. */
  extraTags?: string[];
  /** Also signatures, bills of materials and whatever else has the image, or a part of it, as its subject. */
  referrers?: boolean;
}

/** Moves images. Every method throws Unimplemented on a daemon without the Transfer service. */
export class Transfer {
  readonly #transport: Transport;
  readonly #service: Client<typeof TransferService>;

  constructor(transport: Transport) {
    this.#transport = transport;
    this.#service = createClient(TransferService, transport);
  }

  /** Moves a thing from any source to any destination that fits: the messages of `containerd.types.transfer`, packed. */
  async transfer(source: Any, destination: Any, options: TransferOptions = {}): Promise<void> {
    const { onProgress, ...call } = options;
    if (!onProgress) {
      await this.#service.transfer({ source, destination }, call);
      return;
    }
    await using progress = await NamedStream.open(this.#transport, streamId('progress'), call);
    const told = tellProgress(progress, onProgress);
    await this.#service.transfer({ source, destination, options: { progressStream: progress.id } }, call);
    // The daemon ends the stream after its last word; one that does not is not waited for.
    await Promise.race([told, new Promise((resolve) => setTimeout(resolve, 1000).unref())]);
  }

  /** Pulls an image and unpacks it. @throws StatusError NotFound if the registry has no such image */
  async pull(reference: string, options: PullOptions = {}): Promise<void> {
    await using registry = await this.#registry(reference, options);
    const { name = reference, unpack = true } = options;
    const store = pack(ImageStoreSchema, { name, ...selection(options), ...unpacks(unpack, options) });
    await this.transfer(registry.source, store, options);
  }

  /** Pushes an image of the store. */
  async push(reference: string, options: PushOptions = {}): Promise<void> {
    await using registry = await this.#registry(reference, options);
    const store = pack(ImageStoreSchema, { name: options.name ?? reference, ...selection(options) });
    await this.transfer(store, registry.source, options);
  }

  /** Another name for an image, given by the daemon. With `force` the name is taken from whatever has it. */
  async tag(
    name: string,
    newName: string,
    settings: { force?: boolean } = {},
    options: CallOptions = {},
  ): Promise<void> {
    const overwrite = settings.force ? { extraReferences: [{ name: newName, allowOverwrite: true }] } : {};
    await this.transfer(
      pack(ImageStoreSchema, { name }),
      pack(ImageStoreSchema, { name: newName, ...overwrite }),
      options,
    );
  }

  /** Takes in the images of an archive (OCI layout or `docker save`, plain or compressed). */
  async import(archive: AsyncIterable<Uint8Array>, options: ImportOptions = {}): Promise<void> {
    const { indexName = '', prefix, digests = false, skipDigestForNamed = false } = options;
    const { mediaType = '', compress = false } = options;
    const abort = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
    await using stream = await NamedStream.open(this.#transport, streamId('import'), {
      ...callOptions(options),
      signal,
    });
    const source = pack(ImageImportStreamSchema, { stream: stream.id, mediaType, forceCompress: compress });
    // Daemons take names from the archive only through a prefix; one that may be overwritten lets all names through.
    const reference = { name: prefix ?? `import-${new Date().toISOString().slice(0, 10)}`, isPrefix: true };
    const allowOverwrite = prefix === undefined;
    const extraReferences = [
      { ...reference, allowOverwrite, addDigest: digests, skipNamedDigest: digests && skipDigestForNamed },
    ];
    const store = pack(ImageStoreSchema, {
      name: indexName,
      extraReferences,
      ...selection(options),
      ...unpacks(options.unpack ?? false, options),
    });
    let fault: unknown;
    void sendBytes(stream, archive).catch((reason) => {
      // An archive that cannot be read ends the transfer with its own error.
      fault ??= reason;
      abort.abort(StatusError.from(reason));
    });
    try {
      await this.transfer(source, store, { ...options, signal });
    } catch (reason) {
      throw abort.signal.aborted ? fault : reason;
    }
  }

  /** An archive of images, in OCI layout that `docker load` reads as well. @throws StatusError NotFound */
  async *export(names: string[], options: ExportOptions = {}): AsyncGenerator<Uint8Array> {
    const abort = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
    await using stream = await NamedStream.open(this.#transport, streamId('export'), {
      ...callOptions(options),
      signal,
    });
    const { mediaType = '', allPlatforms = false, skipDockerManifest, skipNonDistributable, platforms } = options;
    const source = pack(ImageStoreSchema, { extraReferences: names.map((name) => ({ name })) });
    const archive = {
      stream: stream.id,
      mediaType,
      allPlatforms,
      skipCompatibilityManifest: skipDockerManifest ?? false,
      skipNonDistributable: skipNonDistributable ?? false,
      platforms: platforms?.map(toWirePlatform) ?? [],
    };
    const destination = options.skipMissing
      ? pack(ImageExportSchema, { export: archive, skipMissing: true })
      : pack(ImageExportStreamSchema, archive);
    yield* receiveMoved(stream, abort, this.transfer(source, destination, { ...options, signal }));
  }

  /**
   * Copies an image from one registry to another, blobs mounted where both are the same, else streamed; the daemon keeps
   * nothing of it. Answers what the destination now has. Gantry only.
   */
  async mirror(source: string, destination: string, options: MirrorOptions = {}): Promise<Descriptor> {
    const call = callOptions(options);
    const { platforms = [], extraTags = [], referrers = false } = options;
    await using from = await this.#registry(source, { ...options.source, ...call });
    await using to = await this.#registry(
      destination,
      { ...options.destination, ...call },
      { platforms: platforms.map(toWirePlatform), extraTags, referrers },
    );
    let mirrored: Descriptor | undefined;
    const onProgress = (progress: TransferProgress): void => {
      if (progress.event === 'mirrored') mirrored = progress.descriptor;
      options.onProgress?.(progress);
    };
    await this.transfer(from.source, to.source, { ...options, onProgress });
    if (!mirrored) throw internal('the daemon did not tell what it mirrored');
    return mirrored;
  }

  /**
   * Unpacks a layer onto a snapshot. What is made stays for as long as this client's lease (`withLease`), or with the
   * label `containerd.io/gc.root`. Gantry only. @throws StatusError AlreadyExists if there is a snapshot of the name
   */
  async unpackLayer(layer: AsyncIterable<Uint8Array>, options: UnpackLayerOptions = {}): Promise<UnpackedLayer> {
    return await unpackLayer(this.#transport, (...all) => this.transfer(...all), layer, {
      ...options,
      call: callOptions(options),
    });
  }

  /** What a snapshot adds to its parent, as a layer that is made when its bytes are first asked for. Gantry only. */
  diffSnapshot(key: string, options: DiffSnapshotOptions = {}): SnapshotDiff {
    return diffSnapshot(this.#transport, (...all) => this.transfer(...all), key, {
      ...options,
      call: callOptions(options),
    });
  }

  /**
   * A path of a container as a tar, whose names begin with the path's last. Links are followed on the way to it and not at its end.
   * Gantry only. @throws StatusError NotFound, of the path or of the container's task; Unimplemented if its shim cannot
   */
  fromContainer(containerId: string, path: string, options: CopyFromContainerOptions = {}): AsyncGenerator<Uint8Array> {
    return copyFromContainer(this.#transport, (...all) => this.transfer(...all), containerId, path, {
      ...options,
      call: callOptions(options),
    });
  }

  /**
   * Unpacks a tar at a path of a container: in a directory, which is made if it is not there; or, if there is a file, over that. Gantry only.
   * @throws StatusError InvalidArgument for what is not a tar or would lead out of the path, PermissionDenied where it is read-only
   */
  toContainer(
    containerId: string,
    path: string,
    archive: AsyncIterable<Uint8Array>,
    options: CopyToContainerOptions = {},
  ): Promise<void> {
    return copyToContainer(this.#transport, (...all) => this.transfer(...all), containerId, path, archive, {
      ...options,
      call: callOptions(options),
    });
  }

  /** A registry as source or destination, with the streams that belong to it. */
  async #registry(
    reference: string,
    options: RegistryOptions & CallOptions,
    more: MessageInitShape<typeof RegistrySchema> = {},
  ): Promise<AsyncDisposable & { source: Any }> {
    const { credentials, onLog, headers = {}, hostsDirectory = '', defaultScheme = '' } = options;
    await using streams = new AsyncDisposableStack();
    const open = async (prefix: string) =>
      streams.use(await NamedStream.open(this.#transport, streamId(prefix), callOptions(options)));
    const auth = credentials && (await open('auth'));
    const logs = onLog && (await open('logs'));
    // Both end with the transfer, and so do what they say.
    if (auth) void answerCredentials(auth, credentials).catch(() => {});
    if (logs) void tellLog(logs, onLog).catch(() => {});
    const registry = {
      reference,
      resolver: {
        authStream: auth?.id ?? '',
        headers,
        hostDir: hostsDirectory,
        defaultScheme,
        logsStream: logs?.id ?? '',
        httpDebug: logs ? HTTPDebug.BOTH : HTTPDebug.DISABLED,
      },
    };
    const { maxConcurrentTransfers = 0, layerFetchBuffer = 0 } = options;
    const { platforms = [], extraTags = [], referrers = false } = more;
    // containerd's own message wherever it says all there is to say: other daemons know no other.
    const plain = maxConcurrentTransfers + layerFetchBuffer + platforms.length + extraTags.length === 0 && !referrers;
    const source = plain
      ? pack(OCIRegistrySchema, registry)
      : pack(RegistrySchema, {
          registry,
          maxConcurrentTransfers,
          layerFetchBuffer: BigInt(layerFetchBuffer),
          platforms,
          extraTags,
          referrers,
        });
    const kept = streams.move();
    return { source, [Symbol.asyncDispose]: () => kept.disposeAsync() };
  }
}

const pack = <D extends DescMessage>(schema: D, message: MessageInitShape<D>): Any => packAny(schema, message);

function callOptions(options: CallOptions): CallOptions {
  const { signal, namespace, lease, timeoutMs } = options;
  return {
    ...(signal ? { signal } : {}),
    ...(namespace === undefined ? {} : { namespace }),
    ...(lease === undefined ? {} : { lease }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
}

function selection(options: ImageSelection) {
  const { platforms = [], labels = {}, allMetadata = false } = options;
  return { platforms: platforms.map(toWirePlatform), labels, allMetadata };
}

function unpacks(wanted: boolean, options: { platforms?: Platform[]; snapshotter?: string }) {
  const { platforms = [], snapshotter = '' } = options;
  const chosen = platforms.length > 0 ? platforms : [defaultPlatform()];
  return { unpacks: wanted ? chosen.map((platform) => ({ platform: toWirePlatform(platform), snapshotter })) : [] };
}

async function tellProgress(stream: NamedStream, listener: (progress: TransferProgress) => void): Promise<void> {
  try {
    for (let message = await stream.receive(); message; message = await stream.receive()) {
      const { event, name, parents, progress, total, desc } = unpackAny(ProgressSchema, message);
      const descriptor = fromWireDescriptor(desc);
      listener({ event, name, parents, progress: Number(progress), total: Number(total), descriptor });
    }
  } catch {
    // Progress is a courtesy: the transfer itself tells whether it failed.
  }
}

async function answerCredentials(
  stream: NamedStream,
  credentials: NonNullable<RegistryOptions['credentials']>,
): Promise<void> {
  for (let message = await stream.receive(); message; message = await stream.receive()) {
    const { host, reference, wwwauthenticate } = unpackAny(AuthRequestSchema, message);
    const answer = await credentials({ host, reference, wwwAuthenticate: wwwauthenticate });
    const expireAt = answer?.expiresAt ? { expireAt: toTimestamp(answer.expiresAt) } : {};
    if (!answer) stream.send(packAny(AuthResponseSchema, { authType: AuthType.NONE }));
    else if ('header' in answer)
      stream.send(packAny(AuthResponseSchema, { authType: AuthType.HEADER, secret: answer.header, ...expireAt }));
    else if ('refreshToken' in answer)
      stream.send(
        packAny(AuthResponseSchema, { authType: AuthType.REFRESH, secret: answer.refreshToken, ...expireAt }),
      );
    else {
      const { username, password: secret } = answer;
      stream.send(packAny(AuthResponseSchema, { authType: AuthType.CREDENTIALS, username, secret, ...expireAt }));
    }
  }
}

async function tellLog(stream: NamedStream, listener: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const bytes of receiveBytes(stream)) listener(decoder.decode(bytes, { stream: true }));
}
