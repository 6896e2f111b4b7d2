import { MediaType } from './image.ts';

/** The same thing under another media type: Docker's as OCI's, a layer with another compression. */

const nonDistributable = 'application/vnd.oci.image.layer.nondistributable.v1.tar';

const ociTypes = new Map<string, string>([
  [MediaType.DockerManifestList, MediaType.OciIndex],
  [MediaType.DockerManifest, MediaType.OciManifest],
  [MediaType.DockerConfig, MediaType.OciConfig],
  [MediaType.DockerLayer, MediaType.OciLayer],
  [MediaType.DockerLayerGzip, MediaType.OciLayerGzip],
  [MediaType.DockerLayerZstd, MediaType.OciLayerZstd],
  [MediaType.DockerLayerForeign, nonDistributable],
  [MediaType.DockerLayerForeignGzip, `${nonDistributable}+gzip`],
]);

/** Each family of tar layers: plain, gzip, zstd (where there is a type for it). */
const layerForms: readonly (readonly [plain: string, gzip: string, zstd?: string])[] = [
  [MediaType.OciLayer, MediaType.OciLayerGzip, MediaType.OciLayerZstd],
  [nonDistributable, `${nonDistributable}+gzip`, `${nonDistributable}+zstd`],
  [MediaType.DockerLayer, MediaType.DockerLayerGzip, MediaType.DockerLayerZstd],
  [MediaType.DockerLayerForeign, MediaType.DockerLayerForeignGzip],
];

/** Types of Docker's own; their descriptors know no annotations. */
export const isDockerType = (type: string): boolean => type.startsWith('application/vnd.docker.');

/** OCI's type for one of Docker's; any other type as it is. */
export const ociTypeOf = (type: string): string => ociTypes.get(type) ?? type;

/** The type of the same tar layer in another form; undefined for what is no tar layer, or has no type for that form. */
export function layerTypeAs(type: string, form: 'none' | 'zstd'): string | undefined {
  const forms = layerForms.find((family) => family.includes(type));
  return form === 'none' ? forms?.[0] : forms?.[2];
}
