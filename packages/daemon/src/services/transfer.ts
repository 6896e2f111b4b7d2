import { Code, hasCode, invalidArgument, packAny, unimplemented } from '@gantry/api';
import { Transfer } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { ProgressSchema } from '@gantry/api/gen/types/transfer/progress_pb.js';
import { toWireDescriptor } from '@gantry/oci';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { MessageStream } from '../core/streaming/stream-manager.ts';
import type { TransferProgress } from '../core/transfer/transferrer.ts';
import { requestContext } from './request-context.ts';

/** `containerd.services.transfer.v1.Transfer`: asks each transferrer in turn, and streams progress to the caller. */
export const transferService = definePlugin({
  type: PluginTypes.Grpc,
  id: 'transfer',
  requires: [PluginTypes.Transfer, PluginTypes.Streaming],
  init(context) {
    const streams = context.get(PluginTypes.Streaming, 'manager');
    return {
      register(grpc) {
        grpc.add(Transfer, {
          async transfer(request, call) {
            const ctx = requestContext(call);
            const { source, destination } = request;
            if (!source || !destination) throw invalidArgument('transfer needs a source and a destination');
            const name = request.options?.progressStream ?? '';
            const stream = name === '' ? undefined : streams.get(ctx, name);
            const options = stream ? { progress: reporter(stream) } : {};
            try {
              for (const transferrer of context.all(PluginTypes.Transfer).values()) {
                try {
                  await transferrer.transfer(ctx, source, destination, options);
                  return {};
                } catch (error) {
                  if (!hasCode(error, Code.Unimplemented)) throw error;
                  context.log.debug('transfer not implemented', { error });
                }
              }
            } finally {
              stream?.close();
            }
            throw unimplemented(`method Transfer not implemented for ${source.typeUrl} to ${destination.typeUrl}`);
          },
        });
      },
    };
  },
});

function reporter(stream: MessageStream): (progress: TransferProgress) => void {
  return ({ event, name = '', parents = [], progress = 0, total = 0, descriptor }) =>
    stream.send(
      packAny(ProgressSchema, {
        event,
        name,
        parents,
        progress: BigInt(progress),
        total: BigInt(total),
        ...(descriptor && { desc: toWireDescriptor(descriptor) }),
      }),
    );
}
