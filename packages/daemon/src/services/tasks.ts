import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, isAny, toTimestamp, unpackAny } from '@gantry/api';
import { Tasks } from '@gantry/api/gen/services/tasks/v1/tasks_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { fromWireDescriptor, toWireDescriptor } from '@gantry/oci';
import type { Differ } from '../core/diff/differ.ts';
import { field, schema } from '../core/plugin/config-schema.ts';
import { definePlugin } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import type { ServiceSet } from '../core/plugin/service-set.ts';
import { openResourceClasses } from '../core/resource-classes/resource-classes.ts';
import { Checkpoints } from '../core/tasks/checkpoints.ts';
import type { ProcessExit, ProcessState, TaskRuntime } from '../core/tasks/task-runtime.ts';
import { TaskService } from '../core/tasks/task-service.ts';
import { type Deprecation, warnOf } from '../core/warnings/deprecations.ts';
import { requestContext } from './request-context.ts';

/** `io.containerd.service.v1.tasks-service`: the one TaskService that gRPC faces share. */
export const tasksService = definePlugin({
  type: PluginTypes.Service,
  id: 'tasks-service',
  requires: [PluginTypes.Runtime, PluginTypes.Metadata, PluginTypes.Differ],
  config: schema({ blockio_config_file: field.string(), rdt_config_file: field.string() }),
  async init(context): Promise<TaskService> {
    const { blockio_config_file: blockio, rdt_config_file: rdt } = context.config;
    const runtime = context.get(PluginTypes.Runtime, 'task') as TaskRuntime;
    const { containers, content } = context.get(PluginTypes.Metadata);
    const differs = context.all(PluginTypes.Differ) as ReadonlyMap<string, Differ>;
    return new TaskService(
      containers,
      runtime,
      new Checkpoints(content, differs.get('walking') ?? [...differs.values()][0]),
      context.daemon.timeout('io.containerd.timeout.task.state'),
      context.log,
      await openResourceClasses({ blockio, rdt }, context.log),
    );
  },
});

function wireExit(exit: ProcessExit): { pid: number; exitStatus: number; exitedAt?: ReturnType<typeof toTimestamp> } {
  return {
    pid: exit.pid,
    exitStatus: exit.exitStatus,
    ...(exit.exitedAt && { exitedAt: toTimestamp(exit.exitedAt) }),
  };
}

function wireProcess(state: ProcessState) {
  const { exitedAt, ...rest } = state;
  // A moment that never was is on the wire as Go has it: clients show what they get.
  return { ...rest, exitedAt: exitedAt ? toTimestamp(exitedAt) : toTimestamp({ seconds: -62135596800n, nanos: 0 }) };
}

/** What options of runc tell the daemon too: where to restore from, and, from older clients, a task API that already listens. */
function readOptions(options: Any | undefined): {
  address: string;
  version: number;
  criuImagePath: string;
  deprecations: Deprecation[];
} {
  if (!isAny(options, OptionsSchema)) return { address: '', version: 0, criuImagePath: '', deprecations: [] };
  const { taskApiAddress, taskApiVersion, criuImagePath } = unpackAny(OptionsSchema, options!);
  const deprecations: Deprecation[] = [];
  if (taskApiAddress !== '') deprecations.push('runc-options-task-api-address');
  if (taskApiVersion !== 0) deprecations.push('runc-options-task-api-version');
  return { address: taskApiAddress, version: taskApiVersion, criuImagePath, deprecations };
}

/** `io.containerd.grpc.v1.tasks`: containerd.services.tasks.v1.Tasks. */
export const tasksGrpc = definePlugin({
  type: PluginTypes.Grpc,
  id: 'tasks',
  requires: [PluginTypes.Service, PluginTypes.Warning],
  init(context): ServiceSet {
    const service = context.get(PluginTypes.Service, 'tasks-service') as TaskService;
    const warnings = context.get(PluginTypes.Warning, 'deprecations');
    return {
      register(grpc): void {
        grpc.add(Tasks, {
          async create(request, call) {
            const { containerId, rootfs, stdin, stdout, stderr, terminal, checkpoint, options } = request;
            const told = readOptions(options);
            for (const name of told.deprecations) await warnOf(warnings, name);
            const { pid } = await service.create(requestContext(call), {
              containerId,
              rootfs,
              io: { stdin, stdout, stderr, terminal },
              checkpoint: fromWireDescriptor(checkpoint),
              criuImagePath: told.criuImagePath,
              options,
              runtimePath: request.runtimePath,
              address: request.taskApiAddress || told.address,
              apiVersion: request.taskApiVersion || told.version,
            });
            return { containerId, pid };
          },
          async start({ containerId, execId }, call) {
            const task = await service.task(requestContext(call), containerId);
            return { pid: await task.start(execId) };
          },
          async delete({ containerId }, call) {
            return { id: containerId, ...wireExit(await service.delete(requestContext(call), containerId)) };
          },
          async deleteProcess({ containerId, execId }, call) {
            const ctx = requestContext(call);
            // No exec: the init process, and with it the task.
            if (execId === '') return { id: '', ...wireExit(await service.delete(ctx, containerId)) };
            const task = await service.task(ctx, containerId);
            return { id: execId, ...wireExit(await task.deleteProcess(execId)) };
          },
          async get({ containerId, execId }, call) {
            return { process: wireProcess(await service.state(requestContext(call), containerId, execId)) };
          },
          async list(_request, call) {
            return { tasks: (await service.list(requestContext(call))).map(wireProcess) };
          },
          async kill({ containerId, execId, signal, all }, call) {
            const task = await service.task(requestContext(call), containerId);
            await task.kill(execId, signal, all);
            return {};
          },
          async exec({ containerId, execId, spec, stdin, stdout, stderr, terminal }, call) {
            const task = await service.task(requestContext(call), containerId);
            if (execId === '') throw invalidArgument('exec id cannot be empty: invalid argument');
            if (!spec) throw invalidArgument('exec needs a process spec: invalid argument');
            await task.exec(execId, spec, { stdin, stdout, stderr, terminal });
            return {};
          },
          async resizePty({ containerId, execId, width, height }, call) {
            const task = await service.task(requestContext(call), containerId);
            await task.resizePty(execId, width, height);
            return {};
          },
          async closeIO({ containerId, execId, stdin }, call) {
            const task = await service.task(requestContext(call), containerId);
            await task.closeIo(execId, stdin);
            return {};
          },
          async pause({ containerId }, call) {
            await (await service.task(requestContext(call), containerId)).pause();
            return {};
          },
          async resume({ containerId }, call) {
            await (await service.task(requestContext(call), containerId)).resume();
            return {};
          },
          async listPids({ containerId }, call) {
            const task = await service.task(requestContext(call), containerId);
            const pids = await task.pids();
            return { processes: pids.map(({ pid, info }) => ({ pid, ...(info && { info }) })) };
          },
          async update({ containerId, resources, annotations }, call) {
            const task = await service.task(requestContext(call), containerId);
            await task.update(resources, annotations);
            return {};
          },
          async checkpoint({ containerId, options }, call) {
            const descriptors = await service.checkpoint(requestContext(call), containerId, options);
            return { descriptors: descriptors.map(toWireDescriptor) };
          },
          async metrics({ filters }, call) {
            const metrics = await service.metrics(requestContext(call), filters);
            return {
              metrics: metrics.map(({ id, timestamp, data }) => ({ id, timestamp: toTimestamp(timestamp), data })),
            };
          },
          async wait({ containerId, execId }, call) {
            const task = await service.task(requestContext(call), containerId);
            const { exitStatus, exitedAt } = await task.wait(execId, call.signal);
            return { exitStatus, ...(exitedAt && { exitedAt: toTimestamp(exitedAt) }) };
          },
        });
      },
    };
  },
});
