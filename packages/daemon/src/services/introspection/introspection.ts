// The gRPC face of introspection.
import { Introspection } from '@gantry/api/gen/services/introspection/v1/introspection_pb.js';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { PluginTypes } from '../../core/plugin/plugin-types.ts';
import type { IntrospectionService } from './introspection-service.ts';

export const introspectionPlugin = definePlugin({
  type: PluginTypes.Grpc,
  id: 'introspection',
  requires: [PluginTypes.Service],
  init: (context) => {
    const service = context.get(PluginTypes.Service, 'introspection-service') as IntrospectionService;
    return {
      register: (grpc) =>
        grpc.add(Introspection, {
          plugins: (request) => ({ plugins: service.plugins(request.filters) }),
          server: () => service.server(),
          pluginInfo: (request) => service.pluginInfo(request.type, request.id, request.options),
        }),
    };
  },
});
