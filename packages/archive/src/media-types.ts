/** Which layer media types the archive room can read and write, and how they are packed. */
import type { Compression } from './compression.ts';

export const LayerMediaType = {
  tar: 'application/vnd.oci.image.layer.v1.tar',
  tarGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  tarZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  dockerTar: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerTarGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
} as const;

const ociBases = new Set<string>([LayerMediaType.tar, 'application/vnd.oci.image.layer.nondistributable.v1.tar']);
const dockerBases = new Set<string>([
  LayerMediaType.dockerTar,
  LayerMediaType.dockerTarGzip,
  'application/vnd.docker.image.rootfs.foreign.diff.tar',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
]);

/**
 * Whether a layer of this type is a tar that we can unpack by looking at its first bytes. False for anything wrapped
 * further (`+encrypted`) or not known: that needs a stream processor or another differ.
 */
export function isReadableLayer(mediaType: string): boolean {
  const [base, ...suffixes] = mediaType.split('+');
  if (dockerBases.has(base!)) return suffixes.length === 0;
  if (!ociBases.has(base!)) return false;
  return suffixes.length === 0 || (suffixes.length === 1 && (suffixes[0] === 'gzip' || suffixes[0] === 'zstd'));
}

/** How a new layer of this type is packed; undefined if it is none that we write. */
export function layerCompression(mediaType: string): Compression | undefined {
  switch (mediaType) {
    case LayerMediaType.tar:
      return 'none';
    case LayerMediaType.tarGzip:
    case LayerMediaType.dockerTarGzip:
      return 'gzip';
    case LayerMediaType.tarZstd:
      return 'zstd';
    default:
      return undefined;
  }
}
