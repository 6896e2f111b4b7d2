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
 * How a layer of this type is read: as a `plain` tar, or `packed` as its first bytes tell. undefined for what is no tar layer, or is
 * encrypted: that needs a stream processor or another differ. A suffix that nobody knows says nothing, as for containerd.
 */
export function layerForm(mediaType: string): 'plain' | 'packed' | undefined {
  const [base = '', ...suffixes] = mediaType.split('+');
  if (suffixes.includes('encrypted')) return undefined;
  if (dockerBases.has(base)) return suffixes.length === 0 ? 'packed' : 'plain';
  if (!ociBases.has(base)) return undefined;
  const last = suffixes.sort().at(-1);
  return last === 'gzip' || last === 'zstd' ? 'packed' : 'plain';
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
