// `containerd.services.version.v1.Version`: what `ctr version` asks.
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import { version } from '../../core/version/version.ts';

export const versionPlugin = definePlugin({
  type: PluginTypes.Grpc,
  id: 'version',
  init: () => ({
    register: (grpc) => grpc.add(Version, { version: () => version }),
  }),
});
