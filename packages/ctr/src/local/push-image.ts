// Pushes an image by this program itself: out of the daemon's content store to the registry.
import { type Client, Code, type Descriptor, Limiter, StatusError, type TransferProgress } from '@gantry/client';
import { childrenOf, isIndexType, isManifestType, isNonDistributable, refKey } from '@gantry/oci';
import type { RegistryClient } from '@gantry/registry';
import { mountSource, sourceLabels } from './distribution-source.ts';
import { maxDepth } from './image-tree.ts';

export interface PushSettings {
  /** Also what may not be passed on. */
  nonDistributable?: boolean;
  /** Uploads of layers at a time; 0: as many as there are. */
  concurrency?: number;
  onProgress?: (progress: TransferProgress) => void;
}

/** Blobs side by side, then manifests from the leaves up, and the root with the reference's tag last. */
export async function pushImage(
  client: Client,
  registry: RegistryClient,
  reference: string,
  root: Descriptor,
  settings: PushSettings = {},
): Promise<void> {
  // With the digest beside it, the tag goes to the root alone.
  const pinned = reference.includes('@') ? reference : `${reference}@${root.digest}`;
  const blobs: [Descriptor, string[]][] = [];
  const documents: [Descriptor, string[]][] = [];
  const seen = new Set<string>();
  const collect = async (descriptor: Descriptor, parents: string[], depth: number): Promise<void> => {
    if (depth > maxDepth)
      throw new StatusError(Code.FailedPrecondition, `indexes are nested more than ${maxDepth} deep`);
    const { mediaType, digest } = descriptor;
    if (seen.has(digest) || (!settings.nonDistributable && isNonDistributable(mediaType))) return;
    seen.add(digest);
    tell('waiting', 0, descriptor, parents);
    if (!isManifestType(mediaType) && !isIndexType(mediaType)) {
      blobs.push([descriptor, parents]);
      return;
    }
    for (const child of childrenOf(descriptor, await client.content.readAll(digest)))
      await collect(child, [...parents, refKey(descriptor)], depth + 1);
    documents.push([descriptor, parents]);
  };
  const tell = (event: string, progress: number, descriptor: Descriptor, parents: string[]): void =>
    settings.onProgress?.({ event, name: refKey(descriptor), parents, progress, total: descriptor.size, descriptor });
  const abort = new AbortController();
  const send = async ([descriptor, parents]: [Descriptor, string[]]): Promise<void> => {
    const { signal } = abort;
    signal.throwIfAborted();
    const { labels } = await client.content.info(descriptor.digest, { signal });
    const outcome = await registry.push(pinned, descriptor, {
      open: () => client.content.read(descriptor.digest, {}, { signal }),
      mountFrom: mountSource(labels, reference),
      onProgress: (sent) => tell('uploading', sent, descriptor, parents),
      signal,
    });
    tell(
      outcome === 'pushed' ? 'complete' : 'already exists',
      outcome === 'pushed' ? descriptor.size : 0,
      descriptor,
      parents,
    );
    const added = sourceLabels(labels, reference);
    if (Object.keys(added).length > 0) await client.content.setLabels(descriptor.digest, added);
  };
  await collect(root, [], 0);
  const limiter = new Limiter(settings.concurrency ?? 0);
  const sending = blobs.map((blob) => limiter.run(() => send(blob)));
  try {
    await Promise.all(sending);
    for (const document of documents) await send(document);
  } catch (reason) {
    abort.abort(reason);
    await Promise.allSettled(sending);
    throw reason;
  }
}
