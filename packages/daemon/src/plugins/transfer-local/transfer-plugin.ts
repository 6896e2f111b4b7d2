import { readFileSync } from 'node:fs';
import { TokenCache } from '@gantry/registry';
import { KeyedLock } from '../../core/content/keyed-lock.ts';
import { loadedCredentials } from '../../core/credentials/loaded-credentials.ts';
import { type Field, field, schema } from '../../core/plugin/config-schema.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { loadedVerifiers } from '../../core/verification/loaded-verifiers.ts';
import { applyWith } from './apply-with.ts';
import { LocalTransfer } from './local-transfer.ts';
import { Semaphore } from './semaphore.ts';
import { type UnpackConfig, unpackSupport } from './unpack-support.ts';

const unpackConfig: Field<UnpackConfig[] | undefined> = {
  kind: 'any',
  default: undefined,
  check: (value) =>
    value === undefined || (Array.isArray(value) && value.every((item) => typeof item === 'object' && item !== null))
      ? undefined
      : 'an array of tables',
};

/** `io.containerd.transfer.v1.local`. */
export const localTransfer = definePlugin({
  type: PluginTypes.Transfer,
  id: 'local',
  requires: [
    PluginTypes.Metadata,
    PluginTypes.Lease,
    PluginTypes.Differ,
    PluginTypes.Streaming,
    PluginTypes.ImageVerifier,
    PluginTypes.Credentials,
  ],
  config: schema({
    max_concurrent_downloads: field.integer(3),
    concurrent_layer_fetch_buffer: field.integer(0),
    max_concurrent_uploaded_layers: field.integer(3),
    check_platform_supported: field.boolean(false),
    config_path: field.string(''),
    // containerd has 1, one layer after another; more needs a snapshotter that can rebase, as ours.
    max_concurrent_unpacks: field.integer(4),
    unpack_config: unpackConfig,
  }),
  async init(context) {
    const { config } = context;
    const metadata = context.get(PluginTypes.Metadata);
    const differs = context.all(PluginTypes.Differ);
    const supported = unpackSupport(
      config.unpack_config,
      config.check_platform_supported,
      differs,
      metadata.snapshotters.names(),
    );
    const collect = () => metadata.gc.collect();
    for (const name of metadata.snapshotters.names()) {
      const snapshotter = metadata.snapshotters.get({ namespace: '' }, name);
      await snapshotter.remake?.(collect, async (namespace, layer, mounts) => {
        const fitting = supported.filter((support) => (support.snapshotter ?? name) === name);
        const able = [...new Set(fitting.flatMap(({ differs }) => differs))];
        await applyWith(able, { namespace }, layer, mounts);
      });
    }
    return new LocalTransfer({
      content: metadata.content,
      images: metadata.images,
      leases: metadata.leases,
      snapshotters: metadata.snapshotters,
      streams: context.get(PluginTypes.Streaming, 'manager'),
      credentials: loadedCredentials(context),
      verifiers: loadedVerifiers(context),
      unpackSupport: supported,
      snapshotterMeta: (name) =>
        context.statuses().find(({ type, id }) => type === PluginTypes.Snapshotter && id === name)?.meta ?? {
          exports: {},
          capabilities: [],
        },
      downloads: new Semaphore(config.max_concurrent_downloads),
      uploads: new Semaphore(config.max_concurrent_uploaded_layers),
      unpacks: new Semaphore(config.max_concurrent_unpacks),
      layerFetch: {
        buffer: config.concurrent_layer_fetch_buffer,
        concurrency: config.max_concurrent_downloads > 0 ? config.max_concurrent_downloads : 3,
      },
      parallelUnpack: config.max_concurrent_unpacks !== 1 && hasInitialUserNamespace(),
      hostsDirectory: config.config_path,
      tokens: new TokenCache(),
      chains: new KeyedLock(),
      fetches: new KeyedLock(),
      log: context.log,
    });
  },
});

/** Elsewhere overlay marks are other attributes, which a mount without a parent does not tell of. */
function hasInitialUserNamespace(): boolean {
  return /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'latin1'));
}
