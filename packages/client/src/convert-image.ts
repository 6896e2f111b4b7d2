import { Code, hasCode } from '@gantry/api';
import type { PlatformMatcher } from '@gantry/oci';
import type { CallOptions } from '@gantry/rpc';
import type { Client } from './client.ts';
import { ConversionStore } from './conversion-store.ts';
import type { LayerConverter } from './convert-layer.ts';
import { ImageConverter } from './image-converter.ts';
import type { Image } from './images.ts';
import type { TransferProgress } from './transfer.ts';

export interface ConvertOptions extends Pick<CallOptions, 'signal'> {
  /** Docker's media types become OCI's. */
  oci?: boolean;
  /** Makes the new form of each layer: `uncompressLayer()`, `zstdLayer(level)` or one of your own. Default: layers stay. */
  layer?: LayerConverter;
  /** Which manifests of an index stay in it. Default: all of them, and all must be there. */
  platform?: PlatformMatcher;
  /** Added to the `os.features` of each converted image, for layers that not every daemon can open. */
  osFeature?: string;
  /** Told how the conversion of each layer goes; events `converting` and `converted`. */
  onProgress?: (progress: TransferProgress) => void;
}

/**
 * Makes another form of an image in the daemon's content store and gives it a name, which may be the old one. The source
 * stays. Documents that need no change keep their bytes and so their digests; in those that do, what is not known is kept.
 * @throws StatusError NotFound for an image, a blob or a platform that is not there; FailedPrecondition for a layer that is
 * not what its image's config says
 */
export async function convertImage(
  client: Client,
  source: string,
  target: string,
  options: ConvertOptions = {},
): Promise<Image> {
  const abort = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
  await using lease = await client.leases.create({ expireAfter: 24 * 3600 }, { signal });
  const held = client.withLease(lease);
  const image = await held.images.get(source, { signal });
  const store = new ConversionStore(held.content, lease, signal);
  const converter = new ImageConverter(store, { ...options, signal });
  try {
    const made = await converter.convert(image.target);
    const record = { name: target, target: made ?? image.target, labels: { ...image.labels } };
    try {
      return await held.images.create(record, { signal });
    } catch (reason) {
      if (!hasCode(reason, Code.AlreadyExists)) throw reason;
      return await held.images.update(record, [], { signal });
    }
  } catch (reason) {
    // Layers that are still being converted stop, and what they wrote goes.
    abort.abort(reason);
    await converter.settled();
    throw reason;
  }
}
