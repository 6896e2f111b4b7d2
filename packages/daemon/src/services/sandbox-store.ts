import { Store } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import type { Implementation } from '@gantry/rpc';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import type { SandboxStore } from '../core/sandboxes/sandbox-store.ts';
import { fromWireSandbox, toWireSandbox } from '../core/sandboxes/wire-sandbox.ts';
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
      return { sandbox: toWireSandbox(await store.create(requestContext(call), fromWireSandbox(request.sandbox))) };
    },
    async update(request, call) {
      return {
        sandbox: toWireSandbox(
          await store.update(requestContext(call), fromWireSandbox(request.sandbox), request.fields),
        ),
      };
    },
    async delete(request, call) {
      await store.delete(requestContext(call), request.sandboxId);
      return {};
    },
    async list(request, call) {
      return { list: (await store.list(requestContext(call), request.filters)).map(toWireSandbox) };
    },
    async get(request, call) {
      return { sandbox: toWireSandbox(await store.get(requestContext(call), request.sandboxId)) };
    },
  };
}
