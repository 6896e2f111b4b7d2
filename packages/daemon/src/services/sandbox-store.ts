import type { MessageInitShape } from '@bufbuild/protobuf';
import { invalidArgument, toTimestamp } from '@gantry/api';
import { Store } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import type { SandboxSchema, Sandbox as WireSandbox } from '@gantry/api/gen/types/sandbox_pb.js';
import type { Implementation } from '@gantry/rpc';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import type { Sandbox, SandboxInput, SandboxStore } from '../core/sandboxes/sandbox-store.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.grpc.v1.sandboxes`: containerd.services.sandbox.v1.Store. */
export const sandboxesGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'sandboxes',
  requires: [PluginTypes.SandboxStore],
  init(context): ServiceSet {
    const store = context.get(PluginTypes.SandboxStore, 'local') as SandboxStore;
    return { register: (grpc) => grpc.add(Store, sandboxStoreService(store)) };
  },
});

/** The sandbox Store service over a store. */
export function sandboxStoreService(store: SandboxStore): Implementation<typeof Store> {
  return {
    async create(request, call) {
      return { sandbox: toWire(await store.create(requestContext(call), fromWire(request.sandbox))) };
    },
    async update(request, call) {
      return { sandbox: toWire(await store.update(requestContext(call), fromWire(request.sandbox), request.fields)) };
    },
    async delete(request, call) {
      await store.delete(requestContext(call), request.sandboxId);
      return {};
    },
    async list(request, call) {
      return { list: (await store.list(requestContext(call), request.filters)).map(toWire) };
    },
    async get(request, call) {
      return { sandbox: toWire(await store.get(requestContext(call), request.sandboxId)) };
    },
  };
}

export function fromWire(sandbox: WireSandbox | undefined): SandboxInput {
  if (!sandbox) throw invalidArgument('sandbox must be given: invalid argument');
  return {
    id: sandbox.sandboxId,
    labels: { ...sandbox.labels },
    runtime: { name: sandbox.runtime?.name ?? '', options: sandbox.runtime?.options },
    spec: sandbox.spec,
    sandboxer: sandbox.sandboxer,
    extensions: { ...sandbox.extensions },
  };
}

export function toWire(sandbox: Sandbox): MessageInitShape<typeof SandboxSchema> {
  const { name, options } = sandbox.runtime;
  return {
    sandboxId: sandbox.id,
    runtime: { name, ...(options && { options }) },
    ...(sandbox.spec && { spec: sandbox.spec }),
    labels: sandbox.labels,
    createdAt: toTimestamp(sandbox.createdAt),
    updatedAt: toTimestamp(sandbox.updatedAt),
    extensions: sandbox.extensions,
    sandboxer: sandbox.sandboxer,
  };
}
