import { invalidArgument } from '@gantry/api';
import { defaultPlatform, onlyOs, onlyPlatform, parsePlatform } from '@gantry/oci';
import type { Differ } from '../../core/diff/differ.ts';
import type { UnpackSupport } from './environment.ts';

/** `[[…unpack_config]]`: a platform and the snapshotter and differ that images for it are unpacked with. */
export interface UnpackConfig {
  platform?: string;
  snapshotter?: string;
  differ?: string;
  /** Of image configurations, and of layers, that are not OCI's or Docker's. */
  config_type?: string;
  layer_types?: string[];
  /** Left out if its snapshotter or differ is not there. */
  optional?: boolean;
}

/** What the configuration says; without any, whatever snapshotter a client names, for every image of this OS. */
export function unpackSupport(
  configs: readonly UnpackConfig[] | undefined,
  checkPlatform: boolean,
  differs: ReadonlyMap<string, Differ>,
  snapshotters: readonly string[],
): UnpackSupport[] {
  const matcherOf = checkPlatform ? onlyPlatform : onlyOs;
  const all = [...differs.values()];
  const support: UnpackSupport[] = [];
  if (configs === undefined) {
    const host = defaultPlatform();
    support.push({ matcher: matcherOf(host), differs: all });
    const erofs = differs.get('erofs');
    // Images made of EROFS layers say so by an OS feature that others do not have.
    if (erofs && snapshotters.includes('erofs')) {
      const matcher = matcherOf({ ...host, osFeatures: ['erofs'] });
      support.push({ matcher, snapshotter: 'erofs', differs: [erofs, ...all.filter((differ) => differ !== erofs)] });
    }
    return support;
  }
  for (const { platform = '', snapshotter, differ, config_type, layer_types, optional } of configs) {
    if (snapshotter && !snapshotters.includes(snapshotter)) {
      if (optional) continue;
      throw invalidArgument(`unpack_config: snapshotter "${snapshotter}" not found`);
    }
    const named = differ ? differs.get(differ) : undefined;
    if (differ && !named) {
      if (optional) continue;
      throw invalidArgument(`unpack_config: differ "${differ}" is not loaded`);
    }
    support.push({
      matcher: matcherOf(platform === '' ? defaultPlatform() : parsePlatform(platform)),
      snapshotter: snapshotter || undefined,
      configType: config_type || undefined,
      layerTypes: layer_types,
      differs: named ? [named] : all,
    });
  }
  return support;
}
