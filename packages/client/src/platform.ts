import type { Platform as WirePlatform } from '@gantry/api/gen/types/platform_pb.js';
import type { Platform } from '@gantry/oci';

export function fromWirePlatform(wire: WirePlatform): Platform {
  return {
    os: wire.os,
    architecture: wire.architecture,
    ...(wire.variant ? { variant: wire.variant } : {}),
    ...(wire.osVersion ? { osVersion: wire.osVersion } : {}),
    ...(wire.osFeatures.length > 0 ? { osFeatures: [...wire.osFeatures] } : {}),
  };
}

export function toWirePlatform(platform: Platform): {
  os: string;
  architecture: string;
  variant: string;
  osVersion: string;
  osFeatures: string[];
} {
  const { os, architecture, variant = '', osVersion = '', osFeatures = [] } = platform;
  return { os, architecture, variant, osVersion, osFeatures };
}
