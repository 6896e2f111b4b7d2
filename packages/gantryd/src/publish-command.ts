// `gantryd publish`: passes an event from standard input on to the daemon. Shims of any make call it to tell of exits.
import { parseArgs } from 'node:util';
import { fromBinary } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { now, toTimestamp } from '@gantry/api';
import { Events } from '@gantry/api/gen/services/ttrpc/events/v1/events_pb.js';
import { createClient } from '@gantry/rpc/client.ts';
import { ttrpcTransport } from '@gantry/rpc/ttrpc-client.ts';

/**
 * @param input the event: a serialised google.protobuf.Any
 * @param address the daemon's main socket; the one for shims is beside it unless TTRPC_ADDRESS says otherwise
 */
export async function publishCommand(args: readonly string[], address: string, input: Buffer): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: { namespace: { type: 'string' }, topic: { type: 'string' } },
  });
  if (!values.topic) throw new Error('publish: topic required to publish event');
  const namespace = values.namespace ?? process.env['CONTAINERD_NAMESPACE'];
  if (!namespace) throw new Error('publish: namespace required to publish event');
  const transport = ttrpcTransport(process.env['TTRPC_ADDRESS'] || `${address}.ttrpc`);
  try {
    const envelope = {
      timestamp: toTimestamp(now()),
      namespace,
      topic: values.topic,
      event: fromBinary(AnySchema, input),
    };
    await createClient(Events, transport).forward({ envelope }, { namespace, timeoutMs: 5000 });
  } finally {
    await transport.close();
  }
}
