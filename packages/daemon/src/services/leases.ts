import { randomBytes } from 'node:crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { invalidArgument, toTimestamp } from '@gantry/api';
import { type LeaseSchema, Leases } from '@gantry/api/gen/services/leases/v1/leases_pb.js';
import type { Implementation } from '@gantry/rpc';
import type { Lease, LeaseManager, LeaseResource } from '../core/leases/lease-manager.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.grpc.v1.leases`: containerd.services.leases.v1.Leases. */
export const leasesGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'leases',
  requires: [PluginTypes.Lease],
  init(context): ServiceSet {
    const leases = context.get(PluginTypes.Lease);
    return { register: (grpc) => grpc.add(Leases, leasesService(leases)) };
  },
});

/** The Leases service over a manager. A lease without an id gets a random one. */
export function leasesService(leases: LeaseManager): Implementation<typeof Leases> {
  return {
    async create(request, call) {
      const id = request.id || `${Date.now()}-${randomBytes(3).toString('base64url')}`;
      return { lease: toWire(await leases.create(requestContext(call), { id, labels: { ...request.labels } })) };
    },
    async delete(request, call) {
      await leases.delete(requestContext(call), request.id, { synchronous: request.sync });
      return {};
    },
    async list(request, call) {
      return { leases: (await leases.list(requestContext(call), request.filters)).map(toWire) };
    },
    async addResource(request, call) {
      await leases.addResource(requestContext(call), request.id, resourceOf(request));
      return {};
    },
    async deleteResource(request, call) {
      await leases.deleteResource(requestContext(call), request.id, resourceOf(request));
      return {};
    },
    async listResources(request, call) {
      return { resources: await leases.listResources(requestContext(call), request.id) };
    },
  };
}

function resourceOf(request: { resource?: LeaseResource | undefined }): LeaseResource {
  if (!request.resource) throw invalidArgument('resource must be given: invalid argument');
  return { id: request.resource.id, type: request.resource.type };
}

function toWire(lease: Lease): MessageInitShape<typeof LeaseSchema> {
  return { id: lease.id, createdAt: toTimestamp(lease.createdAt), labels: lease.labels };
}
