import type { MessageInitShape } from '@bufbuild/protobuf';
import { fromTimestamp, invalidArgument, toTimestamp } from '@gantry/api';
import { type ImageSchema, Images, type Image as WireImage } from '@gantry/api/gen/services/images/v1/images_pb.js';
import { fromWireDescriptor, toWireDescriptor } from '@gantry/oci';
import type { Implementation } from '@gantry/rpc';
import type { Image, ImageStore } from '../core/images/image-store.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.service.v1.images-service`. */
export const imagesServicePlugin = definePlugin({
  type: PluginTypes.Service,
  id: 'images-service',
  requires: [PluginTypes.Event, PluginTypes.Metadata, PluginTypes.Gc],
  init: (context): ImageStore => context.get(PluginTypes.Metadata).images,
});

/** `io.containerd.grpc.v1.images`: containerd.services.images.v1.Images. */
export const imagesGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'images',
  requires: [PluginTypes.Service],
  init(context): ServiceSet {
    const store = context.get(PluginTypes.Service, 'images-service') as ImageStore;
    return { register: (grpc) => grpc.add(Images, imagesService(store)) };
  },
});

/** The Images service over a store. */
export function imagesService(store: ImageStore): Implementation<typeof Images> {
  return {
    async get(request, call) {
      return { image: toWire(await store.get(requestContext(call), request.name)) };
    },
    async list(request, call) {
      return { images: (await store.list(requestContext(call), request.filters)).map(toWire) };
    },
    async create(request, call) {
      const createdAt = fromTimestamp(request.sourceDateEpoch);
      const image = { ...fromWire(request.image), ...(createdAt && { createdAt }) };
      return { image: toWire(await store.create(requestContext(call), image)) };
    },
    async update(request, call) {
      const image = fromWire(request.image);
      return { image: toWire(await store.update(requestContext(call), image, request.updateMask?.paths ?? [])) };
    },
    async delete(request, call) {
      await store.delete(requestContext(call), request.name, {
        synchronous: request.sync,
        ...(request.target && { target: request.target.digest }),
      });
      return {};
    },
  };
}

function fromWire(image: WireImage | undefined): Pick<Image, 'name' | 'labels' | 'target'> {
  if (!image) throw invalidArgument('image must be given: invalid argument');
  const target = fromWireDescriptor(image.target) ?? { mediaType: '', digest: '', size: 0 };
  return { name: image.name, labels: { ...image.labels }, target };
}

function toWire(image: Image): MessageInitShape<typeof ImageSchema> {
  return {
    name: image.name,
    labels: image.labels,
    target: toWireDescriptor(image.target),
    createdAt: toTimestamp(image.createdAt),
    updatedAt: toTimestamp(image.updatedAt),
  };
}
