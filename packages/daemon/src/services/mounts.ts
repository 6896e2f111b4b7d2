import type { MessageInitShape } from '@bufbuild/protobuf';
import { toTimestamp, unimplemented } from '@gantry/api';
import { Mounts } from '@gantry/api/gen/services/mounts/v1/mounts_pb.js';
import type { ActivationInfoSchema, Mount as WireMount } from '@gantry/api/gen/types/mount_pb.js';
import type { Mount } from '@gantry/mount';
import type { Implementation } from '@gantry/rpc';
import type { Activation, MountManager } from '../core/mounts/mount-manager.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.grpc.v1.mounts`: containerd.services.mounts.v1.Mounts. */
export const mountsGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'mounts',
  requires: [PluginTypes.MountManager],
  init(context): ServiceSet {
    const manager = context.get(PluginTypes.MountManager);
    return { register: (grpc) => grpc.add(Mounts, mountsService(manager)) };
  },
});

/** The Mounts service over a manager. Update is not implemented, as in containerd. */
export function mountsService(manager: MountManager): Implementation<typeof Mounts> {
  return {
    async activate(request, call) {
      const activation = await manager.activate(requestContext(call), request.name, request.mounts.map(fromWire), {
        labels: { ...request.labels },
        temporary: request.temporary,
      });
      return { info: toWire(activation) };
    },
    async deactivate(request, call) {
      await manager.deactivate(requestContext(call), request.name);
      return {};
    },
    async info(request, call) {
      return { info: toWire(await manager.info(requestContext(call), request.name)) };
    },
    async update() {
      throw unimplemented('not implemented');
    },
    async *list(request, call) {
      const found = await manager.list(requestContext(call), request.filters);
      for (const activation of found) yield { info: toWire(activation) };
    },
  };
}

function fromWire({ type, source, target, options }: WireMount): Mount {
  return { type, source, target, options: [...options] };
}

function toWire(activation: Activation): MessageInitShape<typeof ActivationInfoSchema> {
  return {
    name: activation.name,
    active: activation.active.map(({ mount, mountedAt, mountPoint, data }) => ({
      mount,
      mountedAt: toTimestamp(mountedAt),
      mountPoint,
      ...(data && { data }),
    })),
    system: activation.system,
    labels: activation.labels,
  };
}
