import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  ContainerConfigSchema,
  type ContainerStatusRequest,
  type ContainerStatusResponseSchema,
  type ContainerStatusSchema,
  Signal,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { type Cri, criContext } from '../cri.ts';
import { toldOptions } from '../run/runtime-handlers.ts';
import { stateOf } from '../store/container-status.ts';
import type { CriContainer } from '../store/cri-container.ts';
import { jsonWith, toJson } from '../wire-json.ts';

export async function containerStatus(
  cri: Cri,
  { containerId, verbose }: ContainerStatusRequest,
): Promise<MessageInitShape<typeof ContainerStatusResponseSchema>> {
  const container = cri.containers.get(containerId);
  return {
    status: await wireContainerStatus(cri, container),
    ...(verbose && { info: { info: await verboseInfo(cri, container) } }),
  };
}

export async function wireContainerStatus(
  cri: Cri,
  container: CriContainer,
): Promise<MessageInitShape<typeof ContainerStatusSchema>> {
  const { id, metadata, status } = container;
  const { config, imageRef } = metadata;
  const image = await cri.images.find(criContext(), imageRef);
  const name = image?.tags[0] ?? image?.digests[0] ?? imageRef;
  return {
    id,
    ...(config.metadata && { metadata: config.metadata }),
    state: stateOf(status),
    createdAt: status.createdAt,
    startedAt: status.startedAt,
    finishedAt: status.finishedAt,
    exitCode: status.exitCode,
    image: { image: image ? name : (config.image?.image ?? '') },
    imageRef: image?.digests[0] ?? imageRef,
    imageId: imageRef,
    reason: status.reason,
    message: status.message,
    labels: config.labels,
    annotations: config.annotations,
    mounts: config.mounts,
    logPath: metadata.logPath,
    ...(status.resources && { resources: { linux: status.resources } }),
    ...(container.user && {
      user: {
        linux: {
          uid: BigInt(container.user.uid),
          gid: BigInt(container.user.gid),
          supplementalGroups: (container.user.additionalGids ?? []).map(BigInt),
        },
      },
    }),
    stopSignal: stopSignalOf(metadata.stopSignal),
  };
}

function stopSignalOf(name: string): Signal {
  if (name === '') return Signal.SIGTERM;
  const upper = name.toUpperCase().replace('RTMIN+', 'RTMINPLUS').replace('RTMAX-', 'RTMAXMINUS');
  const key = upper.startsWith('SIG') ? upper : `SIG${upper}`;
  return (Signal as unknown as Record<string, Signal>)[key] ?? Signal.RUNTIME_DEFAULT;
}

async function verboseInfo(cri: Cri, { id, metadata, status }: CriContainer): Promise<string> {
  const record = await cri.records.containers.get(criContext(), id).catch(() => undefined);
  const sandbox = cri.sandboxes.find(metadata.sandboxId)?.metadata;
  const handler = sandbox && cri.handlers.find(sandbox.config, sandbox.runtimeHandler);
  const info = {
    sandboxID: metadata.sandboxId,
    pid: status.pid,
    removing: status.removing,
    snapshotKey: record?.snapshotKey ?? '',
    snapshotter: record?.snapshotter ?? '',
    runtimeType: record?.runtime.name ?? '',
    runtimeOptions: handler ? toldOptions(handler) : null,
    config: toJson(ContainerConfigSchema, metadata.config),
  };
  return jsonWith(info, { runtimeSpec: record?.spec?.value });
}
