import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, isAny, notFound, typeNameOf, unimplemented, unpackAny } from '@gantry/api';
import { Streaming } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';
import { Transfer } from '@gantry/api/gen/services/transfer/v1/transfer_pb.js';
import { type ContainerPath, ContainerPathSchema } from '@gantry/api/gen/types/transfer/container_pb.js';
import { ReadStreamSchema, WriteStreamSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import { answerStream } from '@gantry/rpc/message-stream.ts';
import type { CallContext, ServiceRegistrar } from '@gantry/rpc/service.ts';
import type { Container } from '../container.ts';
import type { Lifetime } from '../lifetime.ts';
import { namedStreams } from '../stdio/named-streams.ts';
import type { Containers } from '../task-service.ts';

const tar = 'application/x-tar';

/**
 * Adds containerd.services.streaming.v1.Streaming and containerd.services.transfer.v1.Transfer: files into and out of a container, as a tar
 * on a stream that the client opened before.
 */
export function addTransferServices(
  server: ServiceRegistrar,
  containers: Containers,
  lifetime: Lifetime,
  defaultNamespace: string,
): void {
  const namespaceOf = (call: CallContext): string => call.namespace || defaultNamespace;

  const streamOf = (call: CallContext, { stream: name, mediaType }: { stream: string; mediaType: string }) => {
    if (mediaType !== tar && mediaType !== '') throw unimplemented(`unsupported media type "${mediaType}"`);
    const stream = namedStreams.find(namespaceOf(call), name);
    if (!stream) throw notFound(`stream "${name}": not found`);
    return stream;
  };
  const containerOf = (call: CallContext, { containerId }: ContainerPath): Container =>
    containers.get(namespaceOf(call), containerId);

  server.add(Streaming, {
    stream: (requests, call) =>
      answerStream(requests, call.signal, (name, stream) => namedStreams.add(namespaceOf(call), name, stream)),
  });
  server.add(Transfer, {
    transfer: ({ source, destination }, call) =>
      lifetime.busy(async () => {
        if (!source || !destination) throw invalidArgument('transfer needs a source and a destination');
        const { copyIn, copyOut } = await import('./container-copy.ts');
        if (isAny(source, ContainerPathSchema) && isAny(destination, WriteStreamSchema)) {
          const from = unpackAny(ContainerPathSchema, source);
          const stream = streamOf(call, unpackAny(WriteStreamSchema, destination));
          await copyOut(containerOf(call, from), from, stream, call.signal);
        } else if (isAny(source, ReadStreamSchema) && isAny(destination, ContainerPathSchema)) {
          const to = unpackAny(ContainerPathSchema, destination);
          const stream = streamOf(call, unpackAny(ReadStreamSchema, source));
          await copyIn(containerOf(call, to), to, stream, call.signal);
        } else throw unimplemented(`unable to transfer from ${nameOf(source)} to ${nameOf(destination)}`);
        return {};
      }),
  });
}

function nameOf(any: Any): string {
  return typeNameOf(any) || 'nothing';
}
