import { StatusError } from '@gantry/api';
import { type ConfigSchema, type Field, field, schema } from '@gantry/daemon/core/plugin/config-schema.ts';
import { parsePlatform } from '@gantry/oci';

/** What a plugin with this schema is given. */
export type ConfigOf<S> = S extends ConfigSchema<infer T> ? T : never;

/** Fields that containerd reads and does not print while they are not set. */
export function hidden<T>(): Field<T | undefined> {
  return { kind: 'any', default: undefined };
}

/** `[plugins.'io.containerd.cri.v1.images']`. */
export const imagesConfig = schema({
  snapshotter: field.string('overlayfs'),
  disable_snapshot_annotations: field.boolean(true),
  discard_unpacked_layers: field.boolean(false),
  max_concurrent_downloads: field.integer(3),
  concurrent_layer_fetch_buffer: field.integer(0),
  /** A pull that gets nothing for this long is given up; 0: never. */
  image_pull_progress_timeout: field.duration('5m0s'),
  image_pull_with_sync_fs: field.boolean(false),
  /** Seconds between two looks at how much disk snapshots use. */
  stats_collect_period: field.integer(10),
  use_local_image_pull: field.boolean(false),
  pinned_images: field.map({ sandbox: 'registry.k8s.io/pause:3.10.2' }),
  registry: field.table({
    config_path: field.string(''),
    headers: hidden<Record<string, string[]>>(),
    mirrors: hidden<Record<string, { endpoint?: string[] }>>(),
    configs: hidden<Record<string, unknown>>(),
    auths: hidden<Record<string, unknown>>(),
  }),
  image_decryption: field.table({ key_model: field.string('node') }),
  /** By runtime handler: the snapshotter that its images are unpacked for. As in containerd a platform is read, and has no effect. */
  runtime_platforms: hidden<Record<string, { platform?: string; snapshotter?: string }>>(),
});

export type ImagesConfig = ConfigOf<typeof imagesConfig>;

/** @throws InvalidArgument for a platform that is none */
export function checkRuntimePlatforms({ runtime_platforms: platforms }: Pick<ImagesConfig, 'runtime_platforms'>): void {
  for (const { platform } of Object.values(platforms ?? {})) {
    if (!platform) continue;
    try {
      parsePlatform(platform);
    } catch (error) {
      throw StatusError.wrap(error, `unable to parse platform "${platform}"`);
    }
  }
}
