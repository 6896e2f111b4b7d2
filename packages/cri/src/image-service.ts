import type { ImageService } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Implementation } from '@gantry/rpc';
import type { Cri } from './cri.ts';
import { imageFsInfo, imageStatus, listImages, pullImage, removeImage } from './verbs/images.ts';

/** Images in one message of a streamed list. */
const batch = 100;

/** runtime.v1.ImageService. */
export function imageService(cri: Cri): Implementation<typeof ImageService> {
  return {
    listImages: async ({ filter }) => ({ images: await listImages(cri, filter) }),
    async *streamImages({ filter }) {
      const images = await listImages(cri, filter);
      for (let at = 0; at < images.length; at += batch) yield { images: images.slice(at, at + batch) };
    },
    imageStatus: (request) => imageStatus(cri, request),
    pullImage: (request, { signal }) => pullImage(cri, request, signal),
    removeImage: (request) => removeImage(cri, request),
    imageFsInfo: () => imageFsInfo(cri),
  };
}
