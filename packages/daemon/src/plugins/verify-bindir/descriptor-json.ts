import type { Descriptor } from '@gantry/oci';

/** A descriptor as JSON on one line, with the names and the order of the OCI specification. */
export function descriptorJson(descriptor: Descriptor): string {
  const { mediaType, digest, size, urls, annotations, data, platform, artifactType } = descriptor;
  return JSON.stringify({
    mediaType,
    digest,
    size,
    urls,
    annotations,
    data: data && Buffer.from(data).toString('base64'),
    platform: platform && {
      architecture: platform.architecture,
      os: platform.os,
      'os.version': platform.osVersion,
      'os.features': platform.osFeatures,
      variant: platform.variant,
    },
    artifactType,
  });
}
