import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, isAny, unpackAny } from '@gantry/api';
import { ImageExportSchema, type Registry, RegistrySchema } from '@gantry/api/gen/gantry/transfer/v1/transfer_pb.js';
import type { Platform as WirePlatform } from '@gantry/api/gen/types/platform_pb.js';
import { ImageStoreSchema } from '@gantry/api/gen/types/transfer/imagestore_pb.js';
import {
  type ImageExportStream,
  ImageExportStreamSchema,
  ImageImportStreamSchema,
} from '@gantry/api/gen/types/transfer/importexport_pb.js';
import { HTTPDebug, type OCIRegistry, OCIRegistrySchema } from '@gantry/api/gen/types/transfer/registry_pb.js';
import type { Platform } from '@gantry/oci';
import {
  type CredentialsProvider,
  defaultHosts,
  type HostsProvider,
  hostsFromDirectory,
  RegistryClient,
  splitConfigPath,
  type TokenCache,
} from '@gantry/registry';
import { eitherCredentials } from '../../core/credentials/loaded-credentials.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { ByteSender, receiveBytes } from '../../core/streaming/byte-stream.ts';
import type { StreamManager } from '../../core/streaming/stream-manager.ts';
import { askForCredentials } from './ask-credentials.ts';
import { type LayerStreamEndpoint, readLayerEndpoint, type SnapshotEndpoint } from './layer-endpoints.ts';

/** Sources and destinations of transfers, read from their messages. */

export interface RegistryEndpoint {
  kind: 'registry';
  reference: string;
  /** Opens a client for this transfer only. */
  open(): RegistryClient;
  /** Blobs on their way at once, for this transfer; 0: no limit but the daemon's. */
  maxTransfers: number;
  /** Bytes of a range that layers are asked for in; 0: as the daemon is set. */
  layerFetchBuffer: number;
  /** Of a mirror: the images to take along (empty: all), and further tags. */
  platforms: Platform[];
  extraTags: string[];
  /** Of a mirror: signatures and whatever else is attached go along. */
  referrers: boolean;
}

export interface StoreReference {
  name: string;
  isPrefix: boolean;
  allowOverwrite: boolean;
  addDigest: boolean;
  skipNamedDigest: boolean;
}

export interface ImageStoreEndpoint {
  kind: 'store';
  name: string;
  labels: Record<string, string>;
  /** Empty: all. */
  platforms: Platform[];
  allMetadata: boolean;
  manifestLimit: number;
  extraReferences: StoreReference[];
  unpacks: { platform: Platform; snapshotter: string }[];
}

export interface ImportEndpoint {
  kind: 'import';
  bytes: AsyncIterable<Uint8Array>;
  /** Ends the stream, however much of it has been read. */
  close(): void;
  /** '' for "find out". */
  mediaType: string;
  forceCompress: boolean;
}

export interface ExportEndpoint {
  kind: 'export';
  sender: ByteSender;
  mediaType: string;
  platforms: Platform[];
  allPlatforms: boolean;
  skipCompatibilityManifest: boolean;
  skipNonDistributable: boolean;
  /** Leave out what the store does not have, instead of failing. */
  skipMissing: boolean;
}

export interface UnknownEndpoint {
  kind: 'unknown';
  typeUrl: string;
}

export type Endpoint =
  | RegistryEndpoint
  | ImageStoreEndpoint
  | ImportEndpoint
  | ExportEndpoint
  | LayerStreamEndpoint
  | SnapshotEndpoint
  | UnknownEndpoint;

export interface EndpointContext {
  ctx: RequestContext;
  streams: StreamManager;
  /** `config_path` of the plugin, for clients that name no directory. */
  hostsDirectory: string;
  /** Known already, instead of by directories. */
  hosts?: HostsProvider | undefined;
  /** Tokens that earlier transfers got. */
  tokens: TokenCache;
  /** Asked for logins that the client has not given. */
  credentials?: CredentialsProvider | undefined;
  log: (message: string) => void;
}

/** As containerd names endpoints in progress and errors. */
export function describe(endpoint: Endpoint): string {
  switch (endpoint.kind) {
    case 'registry':
      return `OCI Registry (${endpoint.reference})`;
    case 'store':
      return `Local Image Store (${endpoint.name})`;
    case 'import':
      return 'Image Import Stream';
    case 'export':
      return 'Image Export Stream';
    case 'layer':
      return 'Layer Stream';
    case 'snapshot':
      return `Snapshot (${endpoint.key === '' ? `on ${endpoint.parent || 'nothing'}` : endpoint.key})`;
    case 'unknown':
      return endpoint.typeUrl;
  }
}

export function readEndpoint(any: Any, context: EndpointContext): Endpoint {
  const { ctx, streams } = context;
  if (isAny(any, OCIRegistrySchema)) return registry(unpackAny(OCIRegistrySchema, any), context);
  if (isAny(any, RegistrySchema)) return extendedRegistry(unpackAny(RegistrySchema, any), context);
  if (isAny(any, ImageStoreSchema)) {
    const store = unpackAny(ImageStoreSchema, any);
    return {
      kind: 'store',
      name: store.name,
      labels: { ...store.labels },
      platforms: store.platforms.map(fromWirePlatform),
      allMetadata: store.allMetadata,
      manifestLimit: store.manifestLimit,
      extraReferences: store.extraReferences,
      unpacks: store.unpacks.map(({ platform, snapshotter }) => ({
        platform: platform ? fromWirePlatform(platform) : { os: '', architecture: '' },
        snapshotter,
      })),
    };
  }
  if (isAny(any, ImageImportStreamSchema)) {
    const { stream, mediaType, forceCompress } = unpackAny(ImageImportStreamSchema, any);
    const messages = streams.get(ctx, stream);
    const bytes = receiveBytes(messages, ctx.signal);
    return { kind: 'import', bytes, close: () => messages.close(), mediaType, forceCompress };
  }
  if (isAny(any, ImageExportStreamSchema)) return exportStream(unpackAny(ImageExportStreamSchema, any), false, context);
  if (isAny(any, ImageExportSchema)) {
    const { export: message, skipMissing } = unpackAny(ImageExportSchema, any);
    if (!message) throw invalidArgument(`${ImageExportSchema.typeName} needs its export`);
    return exportStream(message, skipMissing, context);
  }
  return readLayerEndpoint(any, context) ?? { kind: 'unknown', typeUrl: any.typeUrl };
}

function exportStream(
  message: ImageExportStream,
  skipMissing: boolean,
  { ctx, streams }: EndpointContext,
): ExportEndpoint {
  return {
    kind: 'export',
    sender: new ByteSender(streams.get(ctx, message.stream), ctx.signal),
    mediaType: message.mediaType,
    platforms: message.platforms.map(fromWirePlatform),
    allPlatforms: message.allPlatforms,
    skipCompatibilityManifest: message.skipCompatibilityManifest,
    skipNonDistributable: message.skipNonDistributable,
    skipMissing,
  };
}

export function fromWirePlatform(wire: WirePlatform): Platform {
  return {
    os: wire.os,
    architecture: wire.architecture,
    ...(wire.variant && { variant: wire.variant }),
    ...(wire.osVersion && { osVersion: wire.osVersion }),
    ...(wire.osFeatures.length > 0 && { osFeatures: wire.osFeatures }),
  };
}

function extendedRegistry(message: Registry, context: EndpointContext): RegistryEndpoint {
  if (!message.registry) throw invalidArgument(`${RegistrySchema.typeName} needs its registry`);
  return {
    ...registry(message.registry, context),
    maxTransfers: message.maxConcurrentTransfers,
    layerFetchBuffer: Number(message.layerFetchBuffer),
    platforms: message.platforms.map(fromWirePlatform),
    extraTags: message.extraTags,
    referrers: message.referrers,
  };
}

function registry({ reference, resolver }: OCIRegistry, context: EndpointContext): RegistryEndpoint {
  const { ctx, streams, hostsDirectory, tokens, log } = context;
  const scheme = resolver?.defaultScheme || undefined;
  // A client names one directory, the configuration any number.
  const roots = resolver?.hostDir ? [resolver.hostDir] : splitConfigPath(hostsDirectory);
  const asked = resolver?.authStream ? askForCredentials(streams.get(ctx, resolver.authStream), reference) : undefined;
  const credentials = eitherCredentials(asked, context.credentials);
  const tracing = resolver ? tracers(resolver.httpDebug, resolver.logsStream, { ctx, streams, log }) : {};
  const hosts = context.hosts ?? (roots.length > 0 ? hostsFromDirectory(roots, scheme) : defaultHosts(scheme));
  return {
    kind: 'registry',
    reference,
    maxTransfers: 0,
    layerFetchBuffer: 0,
    platforms: [],
    extraTags: [],
    referrers: false,
    open: () => new RegistryClient({ hosts, credentials, headers: resolver?.headers, ...tracing, tokens }),
  };
}

/**
 * Requests are told of on the client's stream if it named one, else in the daemon's log: their heads (`DEBUG`), a line each
 * (`TRACE`), or both. A client that does not read misses some, and holds nothing up.
 */
function tracers(
  level: HTTPDebug,
  name: string,
  { ctx, streams, log }: Pick<EndpointContext, 'ctx' | 'streams' | 'log'>,
): { trace?: (line: string) => void; dump?: (text: string) => void } {
  if (level === HTTPDebug.DISABLED) return {};
  let tell = log;
  if (name !== '') {
    const sender = new ByteSender(streams.get(ctx, name), ctx.signal);
    let last = Promise.resolve();
    let waiting = 0;
    tell = (text) => {
      if (waiting > 1000) return;
      waiting++;
      const sent = last.then(() => sender.write(Buffer.from(`${text}\n`)));
      last = sent.catch(() => undefined).finally(() => void waiting--);
    };
  }
  return {
    ...(level !== HTTPDebug.DEBUG && { trace: tell }),
    ...(level !== HTTPDebug.TRACE && { dump: tell }),
  };
}
