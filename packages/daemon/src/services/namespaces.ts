import { invalidArgument } from '@gantry/api';
import { Namespaces } from '@gantry/api/gen/services/namespaces/v1/namespace_pb.js';
import type { Implementation } from '@gantry/rpc';
import type { NamespaceStore } from '../core/namespaces/namespace-store.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';

/** `io.containerd.service.v1.namespaces-service`. */
export const namespacesServicePlugin = definePlugin({
  type: PluginTypes.Service,
  id: 'namespaces-service',
  requires: [PluginTypes.Event, PluginTypes.Metadata],
  init: (context): NamespaceStore => context.get(PluginTypes.Metadata).namespaces,
});

/** `io.containerd.grpc.v1.namespaces`: containerd.services.namespaces.v1.Namespaces. */
export const namespacesGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'namespaces',
  requires: [PluginTypes.Service],
  init(context): ServiceSet {
    const store = context.get(PluginTypes.Service, 'namespaces-service') as NamespaceStore;
    return { register: (grpc) => grpc.add(Namespaces, namespacesService(store)) };
  },
});

/** The Namespaces service over a store. None of its calls needs a namespace of its own. */
export function namespacesService(store: NamespaceStore): Implementation<typeof Namespaces> {
  return {
    async get(request) {
      return { namespace: { name: request.name, labels: await store.labels(request.name) } };
    },
    async list() {
      const namespaces = [];
      for (const name of await store.list()) namespaces.push({ name, labels: await store.labels(name) });
      return { namespaces };
    },
    async create({ namespace }) {
      if (!namespace) throw invalidArgument('namespace must be given: invalid argument');
      await store.create(namespace.name, { ...namespace.labels });
      return { namespace };
    },
    async update({ namespace, updateMask }) {
      if (!namespace) throw invalidArgument('namespace must be given: invalid argument');
      const labels = await store.update(namespace.name, { ...namespace.labels }, updateMask?.paths ?? []);
      return { namespace: { name: namespace.name, labels } };
    },
    async delete(request) {
      await store.delete(request.name);
      return {};
    },
  };
}
