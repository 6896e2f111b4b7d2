import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { invalidArgument, StatusError } from '@gantry/api';
import {
  type ImageFilter,
  type ImageFsInfoResponseSchema,
  ImageSchema,
  type ImageStatusRequest,
  type ImageStatusResponseSchema,
  type PullImageRequest,
  type RemoveImageRequest,
  type Image as WireImage,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { normalizeDockerReference, parseJson, stringifyJson } from '@gantry/oci';
import { type Cri, criContext } from '../cri.ts';
import { requestCredentials } from '../images/auth.ts';
import { type CriImage, imageUser } from '../images/cri-image.ts';
import { CriAnnotation } from '../labels.ts';

/** The verbs of ImageService. */

/** An image changes by becoming another object. */
const onTheWire = new WeakMap<CriImage, WireImage>();
const inJson = new WeakMap<CriImage, string>();

function wireImage(image: CriImage): WireImage {
  const known = onTheWire.get(image);
  if (known) return known;
  const message = makeWireImage(image);
  onTheWire.set(image, message);
  return message;
}

/** What `verbose` adds. */
function infoOf(image: CriImage): string {
  let text = inJson.get(image);
  if (text === undefined) {
    text = stringifyJson({ chainID: image.chainId, imageSpec: parseJson(image.configBytes) });
    inJson.set(image, text);
  }
  return text;
}

function makeWireImage(image: CriImage): WireImage {
  const { uid, username } = imageUser(image.config);
  return create(ImageSchema, {
    id: image.id,
    repoTags: image.tags,
    repoDigests: image.digests,
    size: BigInt(image.size),
    ...(uid !== undefined && { uid: { value: uid } }),
    username,
    pinned: image.pinned,
  });
}

export async function listImages(cri: Cri, filter: ImageFilter | undefined): Promise<WireImage[]> {
  const wanted = filter?.image?.image ?? '';
  if (wanted === '') return (await cri.images.list(criContext())).map(wireImage);
  const image = await cri.images.find(criContext(), wanted);
  return image ? [wireImage(image)] : [];
}

export async function imageStatus(
  cri: Cri,
  request: ImageStatusRequest,
): Promise<MessageInitShape<typeof ImageStatusResponseSchema>> {
  const image = await cri.images.find(criContext(), request.image?.image ?? '');
  if (!image) return {};
  return { image: wireImage(image), ...(request.verbose && { info: { info: infoOf(image) } }) };
}

export async function pullImage(
  cri: Cri,
  request: PullImageRequest,
  signal: AbortSignal,
): Promise<{ imageRef: string }> {
  const reference = request.image?.image ?? '';
  if (reference === '') throw invalidArgument('image reference must be given: invalid argument');
  // Clients from before the field name the handler in the pod's annotations.
  const named = request.image?.runtimeHandler || request.sandboxConfig?.annotations[CriAnnotation.runtimeHandler];
  const handler = named && cri.handlers.has(named) ? cri.handlers.get(named) : undefined;
  const options = { credentials: requestCredentials(request.auth), snapshotter: handler?.snapshotter ?? '' };
  const pull = () => cri.images.pull(criContext(signal), reference, options);
  const image = await cri.metrics.pull(pull).catch((error: unknown) => {
    throw StatusError.wrap(error, `failed to pull and unpack image "${normalizeDockerReference(reference)}"`);
  });
  return { imageRef: image.id };
}

export async function removeImage(cri: Cri, request: RemoveImageRequest): Promise<object> {
  await cri.images.remove(criContext(), request.image?.image ?? '');
  return {};
}

export async function imageFsInfo(cri: Cri): Promise<MessageInitShape<typeof ImageFsInfoResponseSchema>> {
  const imageFilesystems = await cri.stats.imageFilesystems();
  return { imageFilesystems, containerFilesystems: imageFilesystems };
}
