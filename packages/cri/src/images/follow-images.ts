import { Code, hasCode, isAny, unpackAny } from '@gantry/api';
import { ImageCreateSchema, ImageDeleteSchema, ImageUpdateSchema } from '@gantry/api/gen/events/image_pb.js';
import type { EventExchange } from '@gantry/daemon/core/events/exchange.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import { kubernetesNamespace } from '../labels.ts';
import type { CriImages } from './cri-images.ts';

const schemas = [ImageCreateSchema, ImageUpdateSchema, ImageDeleteSchema] as const;

/** Tells of changes, and makes images that came otherwise (by `ctr`, say) into such as CRI has. Returns how to stop. */
export function followImages(images: CriImages, bus: EventExchange, log: Logger): () => Promise<void> {
  const stop = bus.listen(({ namespace, topic, event }) => {
    if (namespace !== kubernetesNamespace) return;
    if (topic === '/content/create') images.contentCame();
    if (!topic.startsWith('/images/')) return;
    const schema = schemas.find((one) => isAny(event, one));
    const name = schema ? unpackAny(schema, event).name : '';
    if (name === '') return;
    images.changed(name);
    // What is read in this same turn may be from before.
    setImmediate(() => images.changed(name));
    if (schema === ImageDeleteSchema) return;
    images.adopt({ namespace }, name).catch((error) => {
      if (!hasCode(error, Code.NotFound)) log.warn('image cannot be taken over', { error, image: name });
    });
  });
  return async () => {
    stop();
    await images.adopted();
  };
}
