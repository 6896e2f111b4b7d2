import type { Descriptor as WireDescriptor } from '@gantry/api/gen/types/descriptor_pb.js';

/** A typed reference to a blob (OCI image specification, descriptor). Fields Gantry does not know are kept by the JSON codec, not here. */
export interface Descriptor {
  mediaType: string;
  digest: string;
  /** Bytes. */
  size: number;
  annotations?: Record<string, string>;
  urls?: string[];
  platform?: Platform;
  artifactType?: string;
  /** The blob itself, base64 in JSON. */
  data?: Uint8Array;
}

/** As the OCI image index has it. */
export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
  osVersion?: string;
  osFeatures?: string[];
}

/** A descriptor from a protobuf message. */
export function fromWireDescriptor(wire: WireDescriptor | undefined): Descriptor | undefined {
  if (!wire) return undefined;
  const annotations = Object.keys(wire.annotations).length > 0 ? { annotations: { ...wire.annotations } } : {};
  return { mediaType: wire.mediaType, digest: wire.digest, size: Number(wire.size), ...annotations };
}

/** What a protobuf descriptor is made of. */
export function toWireDescriptor(descriptor: Descriptor): {
  mediaType: string;
  digest: string;
  size: bigint;
  annotations: Record<string, string>;
} {
  return {
    mediaType: descriptor.mediaType,
    digest: descriptor.digest,
    size: BigInt(descriptor.size),
    annotations: descriptor.annotations ?? {},
  };
}
