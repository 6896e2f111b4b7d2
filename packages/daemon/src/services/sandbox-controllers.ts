import { invalidArgument, notFound, toTimestamp } from '@gantry/api';
import { SandboxCreateSchema, SandboxExitSchema, SandboxStartSchema } from '@gantry/api/gen/events/sandbox_pb.js';
import { Controller, type ControllerCreateRequest } from '@gantry/api/gen/services/sandbox/v1/sandbox_pb.js';
import type { Implementation } from '@gantry/rpc';
import type { EventExchange } from '../core/events/exchange.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import type { SandboxController } from '../core/sandboxes/sandbox-controller.ts';
import type { SandboxInput } from '../core/sandboxes/sandbox-store.ts';
import { fromWireSandbox } from '../core/sandboxes/wire-sandbox.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.grpc.v1.sandbox-controllers`: containerd.services.sandbox.v1.Controller. */
export const sandboxControllersGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'sandbox-controllers',
  requires: [PluginTypes.SandboxController, PluginTypes.PodSandboxController, PluginTypes.Event],
  init(context): ServiceSet {
    const controllers = new Map([
      ...context.all(PluginTypes.PodSandboxController),
      ...context.all(PluginTypes.SandboxController),
    ]);
    const service = sandboxControllersService(controllers, context.get(PluginTypes.Event));
    return { register: (grpc) => grpc.add(Controller, service) };
  },
});

/** The Controller service: each request names the controller that it is for. */
export function sandboxControllersService(
  controllers: ReadonlyMap<string, SandboxController>,
  events: EventExchange,
): Implementation<typeof Controller> {
  const named = ({ sandboxer }: { sandboxer: string }): SandboxController => {
    if (!sandboxer) throw invalidArgument('invalid argument: sandbox controller name can not be empty');
    const controller = controllers.get(sandboxer);
    if (!controller) throw notFound(`not found: failed to get sandbox controller by ${sandboxer}`);
    return controller;
  };
  return {
    async create(request, call) {
      const ctx = requestContext(call);
      const { sandboxId, rootfs, options, netnsPath, annotations } = request;
      await named(request).create(ctx, recordOf(request), {
        rootfs: rootfs.map(({ type, source, target, options }) => ({ type, source, target, options: [...options] })),
        options,
        netnsPath,
        annotations: { ...annotations },
      });
      events.publishMessage(ctx.namespace, '/sandboxes/create', SandboxCreateSchema, { sandboxId });
      return { sandboxId };
    },
    async start(request, call) {
      const ctx = requestContext(call);
      const { sandboxId } = request;
      const { id, createdAt, spec, ...instance } = await named(request).start(ctx, sandboxId);
      events.publishMessage(ctx.namespace, '/sandboxes/start', SandboxStartSchema, { sandboxId });
      return { ...instance, sandboxId: id, createdAt: toTimestamp(createdAt), ...(spec && { spec }) };
    },
    async platform(request, call) {
      const {
        os,
        architecture,
        variant = '',
        osVersion = '',
      } = await named(request).platform(requestContext(call), request.sandboxId);
      return { platform: { os, architecture, variant, osVersion } };
    },
    async stop(request, call) {
      await named(request).stop(requestContext(call), request.sandboxId, request.timeoutSecs);
      return {};
    },
    async wait(request, call) {
      const ctx = requestContext(call);
      const { sandboxId } = request;
      const exit = await named(request).wait(ctx, sandboxId);
      const answer = { exitStatus: exit.exitStatus, exitedAt: toTimestamp(exit.exitedAt) };
      events.publishMessage(ctx.namespace, '/sandboxes/exit', SandboxExitSchema, { sandboxId, ...answer });
      return answer;
    },
    async status(request, call) {
      const { id, createdAt, exitedAt, extra, ...status } = await named(request).status(
        requestContext(call),
        request.sandboxId,
        request.verbose,
      );
      return {
        ...status,
        sandboxId: id,
        ...(createdAt && { createdAt: toTimestamp(createdAt) }),
        ...(exitedAt && { exitedAt: toTimestamp(exitedAt) }),
        ...(extra && { extra }),
      };
    },
    async shutdown(request, call) {
      await named(request).shutdown(requestContext(call), request.sandboxId);
      return {};
    },
    async metrics(request, call) {
      const { timestamp, id, data } = await named(request).metrics(requestContext(call), request.sandboxId);
      return { metrics: { ...(timestamp && { timestamp: toTimestamp(timestamp) }), id, ...(data && { data }) } };
    },
    async update(request, call) {
      const sandbox = fromWireSandbox(request.sandbox);
      await named(request).update(requestContext(call), request.sandboxId, sandbox, [...request.fields]);
      return {};
    },
  };
}

/** Clients of containerd 1.7 send no record, only its id. */
function recordOf({ sandboxId, sandboxer, sandbox }: ControllerCreateRequest): SandboxInput {
  if (sandbox) return { ...fromWireSandbox(sandbox), id: sandbox.sandboxId || sandboxId };
  return { id: sandboxId, labels: {}, runtime: { name: '' }, sandboxer, extensions: {} };
}
