import type { MessageInitShape } from '@bufbuild/protobuf';
import { invalidArgument, toTimestamp } from '@gantry/api';
import {
  type ContainerSchema,
  Containers,
  type Container as WireContainer,
} from '@gantry/api/gen/services/containers/v1/containers_pb.js';
import type { Implementation } from '@gantry/rpc';
import type { Container, ContainerInput, ContainerStore } from '../core/containers/container-store.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.service.v1.containers-service`. */
export const containersServicePlugin = definePlugin({
  type: PluginTypes.Service,
  id: 'containers-service',
  requires: [PluginTypes.Event, PluginTypes.Metadata],
  init: (context): ContainerStore => context.get(PluginTypes.Metadata).containers,
});

/** `io.containerd.grpc.v1.containers`: containerd.services.containers.v1.Containers. */
export const containersGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'containers',
  requires: [PluginTypes.Service],
  init(context): ServiceSet {
    const store = context.get(PluginTypes.Service, 'containers-service') as ContainerStore;
    return { register: (grpc) => grpc.add(Containers, containersService(store)) };
  },
});

/** The Containers service over a store. */
export function containersService(store: ContainerStore): Implementation<typeof Containers> {
  return {
    async get(request, call) {
      return { container: toWire(await store.get(requestContext(call), request.id)) };
    },
    async list(request, call) {
      return { containers: (await store.list(requestContext(call), request.filters)).map(toWire) };
    },
    async *listStream(request, call) {
      for (const container of await store.list(requestContext(call), request.filters)) {
        yield { container: toWire(container) };
      }
    },
    async create(request, call) {
      return { container: toWire(await store.create(requestContext(call), fromWire(request.container))) };
    },
    async update(request, call) {
      const container = fromWire(request.container);
      const paths = request.updateMask?.paths ?? [];
      return { container: toWire(await store.update(requestContext(call), container, paths)) };
    },
    async delete(request, call) {
      await store.delete(requestContext(call), request.id);
      return {};
    },
  };
}

function fromWire(container: WireContainer | undefined): ContainerInput {
  if (!container) throw invalidArgument('container must be given: invalid argument');
  return {
    id: container.id,
    labels: { ...container.labels },
    image: container.image,
    runtime: { name: container.runtime?.name ?? '', options: container.runtime?.options },
    spec: container.spec,
    snapshotter: container.snapshotter,
    snapshotKey: container.snapshotKey,
    extensions: { ...container.extensions },
    sandboxId: container.sandbox,
  };
}

function toWire(container: Container): MessageInitShape<typeof ContainerSchema> {
  const { name, options } = container.runtime;
  return {
    id: container.id,
    labels: container.labels,
    image: container.image,
    runtime: { name, ...(options && { options }) },
    ...(container.spec && { spec: container.spec }),
    snapshotter: container.snapshotter,
    snapshotKey: container.snapshotKey,
    createdAt: toTimestamp(container.createdAt),
    updatedAt: toTimestamp(container.updatedAt),
    extensions: container.extensions,
    sandbox: container.sandboxId,
  };
}
