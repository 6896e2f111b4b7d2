import { Streaming } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';
import { answerStream } from '@gantry/rpc/message-stream.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import { requestContext } from './request-context.ts';

/** `containerd.services.streaming.v1.Streaming`: streams that other requests refer to by name. */
export const streamingService = definePlugin({
  type: PluginTypes.Grpc,
  id: 'streaming',
  requires: [PluginTypes.Streaming],
  init(context) {
    const manager = context.get(PluginTypes.Streaming, 'manager');
    return {
      register(grpc) {
        grpc.add(Streaming, {
          stream: (requests, call) =>
            answerStream(requests, call.signal, (name, stream) => manager.register(requestContext(call), name, stream)),
        });
      },
    };
  },
});
