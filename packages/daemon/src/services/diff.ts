/** containerd.services.diff.v1.Diff, and the list of differs behind it, which transfer shares. */
import { Code, hasCode, invalidArgument, unimplemented } from '@gantry/api';
import { Diff } from '@gantry/api/gen/services/diff/v1/diff_pb.js';
import type { Mount } from '@gantry/mount';
import { type Descriptor, fromWireDescriptor, toWireDescriptor } from '@gantry/oci';
import type { Implementation } from '@gantry/rpc';
import type { ApplyOptions, Differ, DiffOptions } from '../core/diff/differ.ts';
import { field, schema } from '../core/plugin/config-schema.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import type { RequestContext } from '../core/request-context.ts';
import { requestContext } from './request-context.ts';

/** Asks differs in order; the first that does not answer Unimplemented decides. */
export class DifferChain implements Differ {
  readonly #differs: Differ[];
  readonly #syncFs: boolean;

  constructor(differs: Differ[], syncFs = false) {
    this.#differs = differs;
    this.#syncFs = syncFs;
  }

  async apply(
    ctx: RequestContext,
    descriptor: Descriptor,
    mounts: Mount[],
    options: ApplyOptions = {},
  ): Promise<Descriptor> {
    const all = this.#syncFs ? { ...options, syncFs: true } : options;
    return await this.#first((differ) => differ.apply(ctx, descriptor, mounts, all));
  }

  async diff(ctx: RequestContext, lower: Mount[], upper: Mount[], options?: DiffOptions): Promise<Descriptor> {
    return await this.#first((differ) => differ.diff(ctx, lower, upper, options));
  }

  async #first<T>(ask: (differ: Differ) => Promise<T>): Promise<T> {
    let refusal: unknown = unimplemented('no differ is configured');
    for (const differ of this.#differs) {
      try {
        return await ask(differ);
      } catch (error) {
        if (!hasCode(error, Code.Unimplemented)) throw error;
        refusal = error;
      }
    }
    throw refusal;
  }
}

/** `io.containerd.service.v1.diff-service`: the differs of the configuration as one. */
export const diffServicePlugin = definePlugin({
  type: PluginTypes.Service,
  id: 'diff-service',
  requires: [PluginTypes.Differ],
  config: schema({ default: field.strings(['walking']), sync_fs: field.boolean(false) }),
  init(context): Differ {
    const { config } = context;
    const differs = config.default.map((name) => context.get(PluginTypes.Differ, name));
    return new DifferChain(differs, config.sync_fs);
  },
});

/** `io.containerd.grpc.v1.diff`: containerd.services.diff.v1.Diff. */
export const diffGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'diff',
  requires: [PluginTypes.Service],
  init(context): ServiceSet {
    const differ = context.get(PluginTypes.Service, 'diff-service') as Differ;
    return { register: (grpc) => grpc.add(Diff, diffService(differ)) };
  },
});

/** The Diff service over a differ. */
export function diffService(differ: Differ): Implementation<typeof Diff> {
  return {
    async apply(request, call) {
      const descriptor = fromWireDescriptor(request.diff);
      if (!descriptor) throw invalidArgument('diff: a descriptor is required');
      const applied = await differ.apply(requestContext(call), descriptor, request.mounts.map(toMount), {
        processorPayloads: request.payloads,
        syncFs: request.syncFs,
      });
      return { applied: toWireDescriptor(applied) };
    },
    async diff(request, call) {
      const made = await differ.diff(requestContext(call), request.left.map(toMount), request.right.map(toMount), {
        ...(request.mediaType && { mediaType: request.mediaType }),
        ...(request.ref && { ref: request.ref }),
        labels: { ...request.labels },
        ...(request.sourceDateEpoch && { sourceDateEpoch: request.sourceDateEpoch.seconds }),
      });
      return { diff: toWireDescriptor(made) };
    },
  };
}

function toMount(wire: { type: string; source: string; target: string; options: string[] }): Mount {
  return {
    type: wire.type,
    source: wire.source,
    options: [...wire.options],
    ...(wire.target && { target: wire.target }),
  };
}
