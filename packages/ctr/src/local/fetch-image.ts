// Fetches an image by this program itself: from the registry into the daemon's content store.
import {
  type Client,
  Code,
  type Descriptor,
  hasCode,
  type Image,
  Limiter,
  openWriter,
  StatusError,
  type TransferProgress,
} from '@gantry/client';
import { childLabels, childrenOf, isIndexType, isManifestType, maxManifestSize, refKey } from '@gantry/oci';
import type { RegistryClient } from '@gantry/registry';
import { inBatches } from '../batches.ts';
import { sourceLabels } from './distribution-source.ts';
import { maxDepth, type PartsWanted, wantedChildren } from './image-tree.ts';

export interface FetchSettings extends PartsWanted {
  labels?: Record<string, string>;
  /** Downloads at a time; 0: as many as there are. */
  concurrency?: number;
  onProgress?: (progress: TransferProgress) => void;
}

/** Fetches what is wanted of an image and records it. `client` holds a lease. @throws StatusError as the registry says */
export async function fetchImage(
  client: Client,
  registry: RegistryClient,
  reference: string,
  settings: FetchSettings,
): Promise<Image> {
  const abort = new AbortController();
  const tell = (event: string, name: string, progress = 0, descriptor?: Descriptor, parents: string[] = []): void =>
    settings.onProgress?.({
      event,
      name,
      parents,
      progress,
      total: name === reference ? 0 : (descriptor?.size ?? 0),
      descriptor,
    });
  tell(`resolving ${reference}`, '');
  const { descriptor: root } = await registry.resolve(reference, abort.signal).catch((reason) => {
    throw StatusError.wrap(reason, `failed to resolve reference "${reference}"`);
  });
  tell(`fetching ${reference}`, '');
  tell('resolved', reference, 0, root);
  const limiter = new Limiter(settings.concurrency ?? 0);
  const seen = new Map<string, Promise<void>>();

  const visit = (descriptor: Descriptor, parents: string[], depth: number): Promise<void> => {
    const known = seen.get(descriptor.digest);
    if (known) return known;
    const work = (async () => {
      if (depth > maxDepth)
        throw new StatusError(Code.FailedPrecondition, `indexes are nested more than ${maxDepth} deep`);
      const name = refKey(descriptor);
      tell('waiting', name, 0, descriptor, parents);
      const onBytes = (bytes: number) => tell('downloading', name, bytes, descriptor, parents);
      const fresh = await limiter.run(() => fetchBlob(client, registry, reference, descriptor, onBytes, abort.signal));
      tell(fresh ? 'complete' : 'already exists', name, fresh ? descriptor.size : 0, descriptor, parents);
      if (!isManifestType(descriptor.mediaType) && !isIndexType(descriptor.mediaType)) return;
      const all = childrenOf(descriptor, await client.content.readAll(descriptor.digest));
      const children = wantedChildren(descriptor, all, settings);
      const labels = childLabels(children);
      if (children.length > 0) await client.content.setLabels(descriptor.digest, labels);
      await Promise.all(children.map((child) => visit(child, [...parents, name], depth + 1)));
    })();
    seen.set(descriptor.digest, work);
    return work;
  };
  try {
    await visit(root, [reference], 0);
  } catch (reason) {
    abort.abort(reason);
    await Promise.allSettled(seen.values());
    throw reason;
  }
  const record = { name: reference, target: root, ...(settings.labels && { labels: settings.labels }) };
  let image: Image;
  try {
    image = await client.images.create(record);
  } catch (reason) {
    if (!hasCode(reason, Code.AlreadyExists)) throw reason;
    image = await client.images.update(record);
  }
  tell('saved', reference, 0, root);
  return image;
}

/** One blob, going on where an earlier fetch broke off. @returns false if it was there already */
async function fetchBlob(
  client: Client,
  registry: RegistryClient,
  reference: string,
  descriptor: Descriptor,
  onBytes: (bytes: number) => void,
  signal: AbortSignal,
): Promise<boolean> {
  const { mediaType, digest, size } = descriptor;
  if ((isManifestType(mediaType) || isIndexType(mediaType)) && size > maxManifestSize)
    throw new StatusError(Code.NotFound, `rejecting ${size} byte manifest ${digest}: not found`);
  const { content } = client;
  const ref = refKey(descriptor);
  const labels = sourceLabels({}, reference);
  for (let attempt = 1; ; attempt++) {
    signal.throwIfAborted();
    try {
      await using writer = await openWriter(content, ref, { expected: digest, size, labels }, { signal });
      const resumed = writer.offset > 0;
      try {
        const { offset } = writer;
        onBytes(offset);
        if (offset < size || size === 0) {
          const bytes = registry.fetch(reference, descriptor, { offset, signal });
          for await (const piece of inBatches(counted(bytes, offset, onBytes))) await writer.write(piece);
        }
        await writer.commit();
        return true;
      } catch (reason) {
        if (!hasCode(reason, Code.FailedPrecondition)) throw reason;
        // Bytes that are not what the digest says are of no use to anyone; if they are of an earlier attempt, try anew.
        await writer.close();
        await content.abort(ref).catch(() => undefined);
        if (!resumed || attempt > 1) throw reason;
      }
    } catch (reason) {
      if (!hasCode(reason, Code.AlreadyExists)) throw reason;
      const { labels: present } = await content.info(digest);
      const added = sourceLabels(present, reference);
      if (Object.keys(added).length > 0) await content.setLabels(digest, added);
      return false;
    }
  }
}

/** Tells of bytes as they come, before they are gathered. */
async function* counted(
  bytes: AsyncIterable<Uint8Array>,
  offset: number,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let come = offset;
  for await (const piece of bytes) {
    come += piece.byteLength;
    onBytes(come);
    yield piece;
  }
}
