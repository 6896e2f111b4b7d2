import { unimplemented, unknown } from '@gantry/api';
import type { Descriptor, Platform } from './descriptor.ts';
import { parseJson } from './json-codec.ts';

/** Media types of images: the OCI image specification's, Docker's, and containerd's own. */
export const MediaType = {
  OciIndex: 'application/vnd.oci.image.index.v1+json',
  OciManifest: 'application/vnd.oci.image.manifest.v1+json',
  OciConfig: 'application/vnd.oci.image.config.v1+json',
  OciLayer: 'application/vnd.oci.image.layer.v1.tar',
  OciLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  OciLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  OciDescriptor: 'application/vnd.oci.descriptor.v1+json',
  OciEmpty: 'application/vnd.oci.empty.v1+json',
  DockerManifestList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  DockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  DockerManifestV1: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
  DockerConfig: 'application/vnd.docker.container.image.v1+json',
  DockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  DockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  DockerLayerZstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
  DockerLayerForeign: 'application/vnd.docker.image.rootfs.foreign.diff.tar',
  DockerLayerForeignGzip: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  Checkpoint: 'application/vnd.containerd.container.criu.checkpoint.criu.tar',
  CheckpointConfig: 'application/vnd.containerd.container.checkpoint.config.v1+proto',
  CheckpointOptions: 'application/vnd.containerd.container.checkpoint.options.v1+proto',
  CheckpointRuntimeOptions: 'application/vnd.containerd.container.checkpoint.runtime.options+proto',
  ErofsLayer: 'application/vnd.erofs.layer.v1',
  InToto: 'application/vnd.in-toto+json',
} as const;

/** Annotations that name images and tie them together. */
export const Annotation = {
  RefName: 'org.opencontainers.image.ref.name',
  ImageName: 'io.containerd.image.name',
  Created: 'org.opencontainers.image.created',
  ManifestSubject: 'io.containerd.manifest.subject',
} as const;

/** Manifests larger than this are refused, as containerd refuses them. */
export const maxManifestSize = 4 << 20;

export interface Index {
  schemaVersion?: number;
  mediaType?: string;
  artifactType?: string;
  manifests: Descriptor[];
  annotations?: Record<string, string>;
  subject?: Descriptor;
}

export interface Manifest {
  schemaVersion?: number;
  mediaType?: string;
  artifactType?: string;
  config: Descriptor;
  layers: Descriptor[];
  annotations?: Record<string, string>;
  subject?: Descriptor;
}

/** What containers are made from (OCI image configuration). */
export interface ImageConfig {
  architecture?: string;
  os?: string;
  variant?: string;
  'os.version'?: string;
  'os.features'?: string[];
  created?: string;
  author?: string;
  config?: {
    User?: string;
    Env?: string[];
    Entrypoint?: string[] | null;
    Cmd?: string[] | null;
    WorkingDir?: string;
    ExposedPorts?: Record<string, unknown>;
    Volumes?: Record<string, unknown>;
    Labels?: Record<string, string>;
    StopSignal?: string;
    ArgsEscaped?: boolean;
  };
  rootfs?: { type?: string; diff_ids?: string[] | null };
  history?: { created?: string; created_by?: string; author?: string; comment?: string; empty_layer?: boolean }[];
}

export const isIndexType = (type: string): boolean =>
  type === MediaType.OciIndex || type === MediaType.DockerManifestList;
export const isManifestType = (type: string): boolean =>
  type === MediaType.OciManifest || type === MediaType.DockerManifest;
export const isConfigType = (type: string): boolean => type === MediaType.OciConfig || type === MediaType.DockerConfig;
export const isKnownConfig = (type: string): boolean =>
  isConfigType(type) || type === MediaType.Checkpoint || type === MediaType.CheckpointConfig;
export const isNonDistributable = (type: string): boolean =>
  type.startsWith('application/vnd.oci.image.layer.nondistributable.') ||
  type.startsWith('application/vnd.docker.image.rootfs.foreign.');

const dockerLayers = new Set<string>([
  MediaType.DockerLayer,
  MediaType.DockerLayerGzip,
  MediaType.DockerLayerZstd,
  MediaType.DockerLayerForeign,
  MediaType.DockerLayerForeignGzip,
  MediaType.ErofsLayer,
]);

/** A file system layer, also when wrapped (`+encrypted`). */
export function isLayerType(type: string): boolean {
  if (type.startsWith('application/vnd.oci.image.layer.')) return true;
  const plus = type.indexOf('+');
  return dockerLayers.has(plus < 0 ? type : type.slice(0, plus));
}

export type LayerCompression = 'gzip' | 'zstd' | 'none' | 'detect';

/**
 * How a layer is compressed by its media type; `detect` for Docker's plain type, which is often compressed all the same.
 * @throws Unimplemented for a type that is not a layer Gantry can open itself.
 */
export function layerCompression(type: string): LayerCompression {
  const [base = '', ...suffixes] = type.split('+');
  suffixes.sort();
  const last = suffixes.at(-1);
  switch (base) {
    case MediaType.DockerLayer:
    case MediaType.DockerLayerForeign:
      if (suffixes.length === 0) return 'detect';
      break;
    case MediaType.DockerLayerGzip:
    case MediaType.DockerLayerForeignGzip:
      if (suffixes.length === 0) return 'gzip';
      break;
    case MediaType.DockerLayerZstd:
      if (suffixes.length === 0) return 'zstd';
      break;
    case MediaType.OciLayer:
    case 'application/vnd.oci.image.layer.nondistributable.v1.tar':
      if (last === undefined) return 'none';
      if (last === 'gzip' || last === 'zstd') return last;
      break;
    default:
  }
  throw unimplemented(`unrecognised mediatype ${type}`);
}

/** The name of an ingest for a descriptor, and of its line in progress reports. */
export function refKey(descriptor: Descriptor): string {
  const name = descriptor.annotations?.[Annotation.RefName];
  const key = name === undefined ? descriptor.digest : `${name}@${descriptor.digest}`;
  const type = descriptor.mediaType;
  if (isManifestType(type)) return `manifest-${key}`;
  if (isIndexType(type)) return `index-${key}`;
  if (isLayerType(type)) return `layer-${key}`;
  if (isKnownConfig(type)) return `config-${key}`;
  if (type === MediaType.InToto) return `attestation-${key}`;
  return `unknown-${key}`;
}

/**
 * The labels by which a blob holds its children against garbage collection: `…content.config`, `…content.m.0`,
 * `…content.l.0`, counted per kind.
 */
export function childLabels(children: readonly Descriptor[]): Record<string, string> {
  const labels: Record<string, string> = {};
  const counts = new Map<string, number>();
  for (const child of children) {
    let key = 'containerd.io/gc.ref.content.';
    if (child.annotations?.[Annotation.ManifestSubject] !== undefined) {
      labels[`${key}referrer.sha256.${child.digest.slice(child.digest.indexOf(':') + 1).slice(0, 12)}`] = child.digest;
      continue;
    }
    if (isKnownConfig(child.mediaType)) key += 'config';
    else if (isManifestType(child.mediaType)) key += 'm.';
    else if (isLayerType(child.mediaType)) key += 'l.';
    const count = counts.get(key) ?? 0;
    counts.set(key, count + 1);
    labels[count > 0 || key.endsWith('.') ? `${key}${count}` : key] = child.digest;
  }
  return labels;
}

type RawPlatform = Platform & { 'os.version'?: string; 'os.features'?: string[] };

/** A descriptor as JSON has it, with Gantry's names for its platform. Throws for one without digest or with a bad size. */
export function descriptorFromJson(raw: unknown): Descriptor {
  const from = raw as (Record<string, unknown> & { platform?: RawPlatform }) | null;
  if (typeof from !== 'object' || from === null || typeof from.digest !== 'string') {
    throw unknown('invalid descriptor: no digest');
  }
  const size = from.size ?? 0;
  if (typeof size !== 'number' || !Number.isSafeInteger(size)) throw unknown(`invalid size ${size} in ${from.digest}`);
  const { platform, data, ...rest } = from;
  const descriptor = { ...rest, mediaType: from.mediaType ?? '', size } as unknown as Descriptor;
  if (platform) descriptor.platform = platformFromJson(platform);
  if (typeof data === 'string') descriptor.data = Buffer.from(data, 'base64');
  return descriptor;
}

export function platformFromJson(raw: RawPlatform | ImageConfig): Platform {
  const version = raw['os.version'];
  const features = raw['os.features'];
  return {
    os: raw.os ?? '',
    architecture: raw.architecture ?? '',
    ...(raw.variant && { variant: raw.variant }),
    ...(version && { osVersion: version }),
    ...(features && features.length > 0 && { osFeatures: features }),
  };
}

/** The JSON form of a descriptor, for documents of our own. Annotations are in order of key, as Go writes them. */
export function descriptorToJson(descriptor: Descriptor): Record<string, unknown> {
  const { platform, data, mediaType, digest, size, annotations, ...rest } = descriptor;
  return {
    mediaType,
    digest,
    size,
    ...rest,
    ...(annotations && { annotations: Object.fromEntries(Object.entries(annotations).sort()) }),
    ...(data && { data: Buffer.from(data).toString('base64') }),
    ...(platform && {
      platform: {
        architecture: platform.architecture,
        os: platform.os,
        ...(platform.osVersion && { 'os.version': platform.osVersion }),
        ...(platform.osFeatures && { 'os.features': platform.osFeatures }),
        ...(platform.variant && { variant: platform.variant }),
      },
    }),
  };
}

/** The document must be what its media type says, or an image could be one thing to a verifier and another to a runtime. */
function checkKind(document: Record<string, unknown>, mediaType: string): void {
  const some = (key: string): boolean => document[key] !== undefined;
  if (some('fsLayers')) throw unknown('media-type: schema 1 not supported');
  const inner = typeof document.mediaType === 'string' ? document.mediaType : '';
  if (isManifestType(mediaType) && (some('manifests') || isIndexType(inner))) {
    throw unknown(`media-type: expected manifest but found index (${mediaType})`);
  }
  if (isIndexType(mediaType) && (some('config') || some('layers') || isManifestType(inner))) {
    throw unknown(`media-type: expected index but found manifest (${mediaType})`);
  }
}

function readDocument(bytes: Uint8Array, mediaType: string): Record<string, unknown> {
  let document: unknown;
  try {
    document = parseJson(bytes);
  } catch (error) {
    throw unknown(`invalid JSON in ${mediaType}: ${(error as Error).message}`, error);
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw unknown(`invalid ${mediaType}: not an object`);
  }
  checkKind(document as Record<string, unknown>, mediaType);
  return document as Record<string, unknown>;
}

const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** Reads a manifest. @throws Unknown for one that is not, or that claims to be an index as well. */
export function parseManifest(bytes: Uint8Array, mediaType: string): Manifest {
  const document = readDocument(bytes, mediaType);
  return {
    ...document,
    config: descriptorFromJson(document.config),
    layers: list(document.layers).map(descriptorFromJson),
  } as Manifest;
}

/** Reads an index or manifest list. */
export function parseIndex(bytes: Uint8Array, mediaType: string): Index {
  const document = readDocument(bytes, mediaType);
  return { ...document, manifests: list(document.manifests).map(descriptorFromJson) } as Index;
}

/** Reads an image configuration. */
export function parseImageConfig(bytes: Uint8Array): ImageConfig {
  try {
    return parseJson<ImageConfig>(bytes);
  } catch (error) {
    throw unknown(`unmarshal image config: ${(error as Error).message}`, error);
  }
}

/** What a blob refers to: an index's manifests, a manifest's config and layers; nothing for other types. */
export function childrenOf(descriptor: Descriptor, bytes: Uint8Array): Descriptor[] {
  if (isManifestType(descriptor.mediaType)) {
    const manifest = parseManifest(bytes, descriptor.mediaType);
    return [manifest.config, ...manifest.layers];
  }
  if (isIndexType(descriptor.mediaType)) return parseIndex(bytes, descriptor.mediaType).manifests;
  return [];
}
