import { failedPrecondition, notFound } from '@gantry/api';
import {
  allPlatforms,
  childLabels,
  type Descriptor,
  descriptorFromJson,
  isConfigType,
  isDockerType,
  isIndexType,
  isLayerType,
  isManifestType,
  ociTypeOf,
  type PlatformMatcher,
  parseImageConfig,
  parseIndex,
  parseManifest,
  platformFromJson,
  refKey,
} from '@gantry/oci';
import type { ConversionStore, RawDescriptor, StoredDocument } from './conversion-store.ts';
import type { ConvertOptions } from './convert-image.ts';
import type { ConvertedLayer } from './convert-layer.ts';
import { Limiter } from './limiter.ts';

/** Layers converted at a time: compression has libuv's four threads. */
const concurrency = 4;
/** Indexes within indexes deeper than this are no images. */
const maxDepth = 16;

/** Says where in its compressed bytes a layer's files are; not true of the same layer in another form. */
const layoutAnnotations = [
  'containerd.io/snapshot/stargz/',
  'io.containers.estargz.',
  'io.containers.zstd-chunked.',
  'io.github.containers.zstd-chunked.',
];

/** Walks an image from its root and makes what changes anew, from the layers up. */
export class ImageConverter {
  readonly #store: ConversionStore;
  readonly #options: ConvertOptions & { signal: AbortSignal };
  readonly #platform: PlatformMatcher;
  /** Of layers that several manifests share. */
  readonly #layers = new Map<string, Promise<ConvertedLayer | undefined>>();
  readonly #turns = new Limiter(concurrency);

  constructor(store: ConversionStore, options: ConvertOptions & { signal: AbortSignal }) {
    this.#store = store;
    this.#options = options;
    this.#platform = options.platform ?? allPlatforms;
  }

  /** The new root of an image; undefined if nothing changes. */
  async convert(root: Descriptor): Promise<Descriptor | undefined> {
    const made = await this.#convert({ ...root } as unknown as RawDescriptor, [], 0);
    return made && descriptorFromJson({ ...made, platform: undefined });
  }

  /** Waits until no layer is being converted any more, however it ends. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#layers.values());
  }

  async #convert(raw: RawDescriptor, parents: string[], depth: number): Promise<RawDescriptor | undefined> {
    const { mediaType = '' } = raw;
    if (depth > maxDepth) throw failedPrecondition(`indexes are nested more than ${maxDepth} deep at ${raw.digest}`);
    let made: RawDescriptor | undefined;
    if (isIndexType(mediaType)) made = await this.#index(raw, parents, depth);
    else if (isManifestType(mediaType)) made = await this.#manifest(raw, parents);
    return this.#inOci(raw, made);
  }

  /** What Docker's media types ask for, whatever else has changed. */
  #inOci(raw: RawDescriptor, made: RawDescriptor | undefined): RawDescriptor | undefined {
    if (!isDockerType(raw.mediaType ?? '')) return made;
    const last = made ?? raw;
    if (this.#options.oci) return { ...last, mediaType: ociTypeOf(last.mediaType ?? '') };
    if (Object.keys(last.annotations ?? {}).length === 0) return made;
    const { annotations: _, ...bare } = last;
    return bare as RawDescriptor;
  }

  async #index(raw: RawDescriptor, parents: string[], depth: number): Promise<RawDescriptor | undefined> {
    const document = await this.#store.read(raw);
    const before = rawDescriptors(document.json.manifests);
    const typed = parseIndex(document.bytes, raw.mediaType ?? '').manifests;
    const key = refKey(descriptorFromJson(raw));
    const chosen = before.filter((_, at) => !typed[at]!.platform || this.#platform.match(typed[at]!.platform));
    if (chosen.length === 0 && before.length > 0)
      throw notFound(`no match for platform in manifest ${raw.digest}: not found`);
    const after: RawDescriptor[] = [];
    let changed = chosen.length < before.length;
    for (const child of chosen) {
      const made = await this.#convert(child, [...parents, key], depth + 1);
      changed ||= made !== undefined;
      after.push(made ?? child);
    }
    const mediaType = this.#documentType(document);
    if (!changed && mediaType === undefined) return undefined;
    const json = { ...document.json, ...(mediaType && { mediaType }), manifests: after };
    const labels = childLabels(after.map(descriptorFromJson));
    return replaced(raw, await this.#store.write(document, json, before, labels));
  }

  async #manifest(raw: RawDescriptor, parents: string[]): Promise<RawDescriptor | undefined> {
    const document = await this.#store.read(raw);
    const typed = parseManifest(document.bytes, raw.mediaType ?? '');
    const before = rawDescriptors(document.json.layers);
    const key = refKey(descriptorFromJson(raw));
    const converted = await Promise.all(typed.layers.map((layer) => this.#layer(layer, [...parents, key])));
    const layers = before.map((layer, at) => this.#inOci(layer, replacedLayer(layer, converted[at])) ?? layer);
    const oldConfig = document.json.config as RawDescriptor;
    const isImage = isConfigType(oldConfig.mediaType ?? '');
    const newConfig = isImage ? await this.#config(oldConfig, typed.layers, converted) : undefined;
    const config = this.#inOci(oldConfig, newConfig?.config) ?? oldConfig;
    const mediaType = this.#documentType(document);
    if (mediaType === undefined && config === oldConfig && layers.every((layer, at) => layer === before[at]))
      return undefined;
    const json = { ...document.json, ...(mediaType && { mediaType }), config, layers };
    const labels = childLabels([config, ...layers].map(descriptorFromJson));
    const made = replaced(raw, await this.#store.write(document, json, [oldConfig, ...before], labels));
    return newConfig?.platform ? { ...made, platform: newConfig.platform } : made;
  }

  /** One layer, at its turn; the same one only once. */
  #layer(layer: Descriptor, parents: string[]): Promise<ConvertedLayer | undefined> {
    const convert = this.#options.layer;
    if (!convert || !isLayerType(layer.mediaType)) return Promise.resolve(undefined);
    const key = `${layer.mediaType} ${layer.digest}`;
    const present = this.#layers.get(key);
    if (present) return present;
    const tell = (event: string, progress: number) =>
      this.#options.onProgress?.({
        event,
        name: refKey(layer),
        parents,
        progress,
        total: layer.size,
        descriptor: layer,
      });
    const work = this.#turns.run(async () => {
      const { signal } = this.#options;
      signal.throwIfAborted();
      const onRead = (bytes: number) => tell('converting', bytes);
      const made = await convert(layer, { content: this.#store.content, signal, onRead });
      if (made) {
        await this.#store.hold(made.layer.digest);
        tell('converted', layer.size);
      }
      return made;
    });
    this.#layers.set(key, work);
    return work;
  }

  /** The config with the diff ids of the new layers; undefined if they are the old ones. */
  async #config(
    raw: RawDescriptor,
    layers: readonly Descriptor[],
    converted: readonly (ConvertedLayer | undefined)[],
  ): Promise<{ config: RawDescriptor; platform?: Record<string, unknown> } | undefined> {
    if (!converted.some((made) => made)) return undefined;
    const document = await this.#store.read(raw);
    const parsed = parseImageConfig(document.bytes);
    const old = parsed.rootfs?.diff_ids ?? [];
    const ours = converted.filter((_, at) => isLayerType(layers[at]!.mediaType));
    if (old.length !== ours.length && ours.some((made) => made && made.diffId !== made.oldDiffId))
      throw failedPrecondition(
        `the image is broken: its config ${raw.digest} has ${old.length} diff ids for ${ours.length} layers`,
      );
    const diffIds = old.map((diffId, at) => {
      const made = ours[at];
      if (made && made.oldDiffId !== diffId)
        throw failedPrecondition(
          `the image is broken: its config ${raw.digest} says diff id ${diffId} for a layer that has ${made.oldDiffId}`,
        );
      return made?.diffId ?? diffId;
    });
    const { osFeature } = this.#options;
    const features = parsed['os.features'] ?? [];
    const adds = osFeature !== undefined && !features.includes(osFeature);
    const changes = diffIds.some((diffId, at) => diffId !== old[at]);
    if (!adds && !changes) return undefined;
    const json: Record<string, unknown> = { ...document.json };
    if (changes) {
      json.rootfs = { ...(json.rootfs as object), diff_ids: diffIds };
      // Old builders put the id of an image here that is now another one.
      for (const key of ['config', 'container_config']) {
        const { Image: _, ...rest } = (json[key] ?? {}) as Record<string, unknown>;
        if (json[key]) json[key] = rest;
      }
    }
    if (adds) json['os.features'] = [...features, osFeature].sort();
    const snapshots = /^containerd\.io\/gc\.ref\.snapshot\./;
    const labels = Object.fromEntries(Object.entries(document.labels).filter(([key]) => !snapshots.test(key)));
    const config = replaced(raw, await this.#store.write({ ...document, labels }, json, [], {}));
    const platform = osFeature === undefined ? undefined : platformJson(json);
    return { config, ...(platform && { platform }) };
  }

  /** The media type that a document has to say of itself; undefined if it may stay as it is. */
  #documentType({ json }: StoredDocument): string | undefined {
    const own = typeof json.mediaType === 'string' ? json.mediaType : '';
    return this.#options.oci && isDockerType(own) ? ociTypeOf(own) : undefined;
  }
}

function rawDescriptors(list: unknown): RawDescriptor[] {
  return Array.isArray(list) ? (list as RawDescriptor[]) : [];
}

/** The descriptor of other bytes; what belonged to the old ones alone is gone. */
function replaced(raw: RawDescriptor, made: { mediaType?: string; digest: string; size: number }): RawDescriptor {
  const { data: _, urls: __, ...rest } = raw;
  return { ...rest, ...made } as RawDescriptor;
}

function replacedLayer(raw: RawDescriptor, made: ConvertedLayer | undefined): RawDescriptor | undefined {
  if (!made) return undefined;
  const layer = replaced(raw, made.layer);
  if (!layer.annotations) return layer;
  const { annotations, ...bare } = layer;
  const kept = Object.entries(annotations).filter(
    ([key]) => !layoutAnnotations.some((prefix) => key.startsWith(prefix)),
  );
  return kept.length > 0 ? { ...bare, annotations: Object.fromEntries(kept) } : (bare as RawDescriptor);
}

function platformJson(config: Record<string, unknown>): Record<string, unknown> {
  const { os, architecture, variant, osVersion, osFeatures } = platformFromJson(config);
  return {
    architecture,
    os,
    ...(osVersion && { 'os.version': osVersion }),
    ...(osFeatures && { 'os.features': osFeatures }),
    ...(variant && { variant }),
  };
}
