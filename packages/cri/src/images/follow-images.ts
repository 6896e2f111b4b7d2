import { Code, hasCode, isAny, unpackAny } from '@gantry/api';
import { ImageCreateSchema, ImageUpdateSchema } from '@gantry/api/gen/events/image_pb.js';
import type { EventExchange } from '@gantry/daemon/core/events/exchange.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import { kubernetesNamespace } from '../labels.ts';
import type { CriImages } from './cri-images.ts';

/** Tells of changes, and makes images that came otherwise (by `ctr`, say) into such as CRI has. Returns how to stop. */
export function followImages(images: CriImages, bus: EventExchange, log: Logger): () => Promise<void> {
  let last = Promise.resolve();
  const stop = bus.listen(({ namespace, topic, event }) => {
    if (namespace !== kubernetesNamespace || !topic.startsWith('/images/')) return;
    images.changed();
    // What is read in this same turn may be from before.
    setImmediate(() => images.changed());
    const name = isAny(event, ImageCreateSchema)
      ? unpackAny(ImageCreateSchema, event).name
      : isAny(event, ImageUpdateSchema)
        ? unpackAny(ImageUpdateSchema, event).name
        : '';
    if (name === '') return;
    last = last.then(async () => {
      try {
        await images.adopt({ namespace }, name);
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) log.warn('image cannot be taken over', { error, image: name });
      }
    });
  });
  return async () => {
    stop();
    await last;
  };
}
