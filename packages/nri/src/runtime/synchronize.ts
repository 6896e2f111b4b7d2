import { create, toBinary } from '@bufbuild/protobuf';
import { failedPrecondition } from '@gantry/api';
import {
  type Container,
  ContainerSchema,
  type ContainerUpdate,
  type PodSandbox,
  PodSandboxSchema,
  type SynchronizeRequest,
  SynchronizeRequestSchema,
  type SynchronizeResponse,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';

/** ttrpc carries 4 MiB; this leaves room for the envelope. */
export const largestChunk = (4 << 20) - (64 << 10);

/** Shows a plugin all there is, in as many messages as that takes. @throws FailedPrecondition for a plugin that takes one only */
export async function synchronizeInChunks(
  pods: readonly PodSandbox[],
  containers: readonly Container[],
  send: (request: SynchronizeRequest) => Promise<SynchronizeResponse>,
  largest = largestChunk,
): Promise<ContainerUpdate[]> {
  const chunks = chunksOf(pods, containers, largest);
  const last = chunks.pop()!;
  for (const chunk of chunks) {
    chunk.more = true;
    const { more, update } = await send(chunk);
    if (!more || update.length > 0) throw failedPrecondition('plugin does not handle split sync requests');
  }
  return (await send(last)).update;
}

function chunksOf(
  pods: readonly PodSandbox[],
  containers: readonly Container[],
  largest: number,
): SynchronizeRequest[] {
  let chunk = create(SynchronizeRequestSchema);
  const chunks = [chunk];
  let size = 0;
  const room = (length: number): SynchronizeRequest => {
    // Its tag and its length come before an entry.
    if (size + length + 8 > largest && size > 0) {
      chunk = create(SynchronizeRequestSchema);
      chunks.push(chunk);
      size = 0;
    }
    size += length + 8;
    return chunk;
  };
  for (const pod of pods) room(toBinary(PodSandboxSchema, pod).length).pods.push(pod);
  for (const each of containers) room(toBinary(ContainerSchema, each).length).containers.push(each);
  return chunks;
}
