import { invalidArgument } from '@gantry/api';
import {
  type ContainerAdjustment,
  type Hook,
  IOPrioClass,
  type LinuxContainerAdjustment,
  type LinuxDevice,
  type LinuxNamespace,
  type LinuxRdt,
  LinuxSchedulerFlag,
  LinuxSchedulerPolicy,
  type LinuxSeccomp,
  MpolFlag,
  MpolMode,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import {
  linuxOf,
  processOf,
  type RuntimeSpec,
  resourcesOf,
  type SpecHook,
  type SpecLinux,
  type SpecNamespace,
  type SpecResources,
  type SpecSeccomp,
} from '@gantry/oci';
import { applyMounts } from './apply-mounts.ts';
import { isRemoval, withoutMark } from './removal-marks.ts';
import { specNumber } from './spec-numbers.ts';
import { toSpecResources } from './spec-resources.ts';

const hookKinds = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'] as const;

/** What only the runtime can do. */
export interface AdjustmentTools {
  injectCdi(spec: RuntimeSpec, devices: readonly string[]): Promise<void>;
  /** Lays limits over those of a specification. */
  mergeResources(base: SpecResources, over: SpecResources): SpecResources;
  /** @throws InvalidArgument where there are no such classes; '' takes one away */
  applyBlockIoClass(spec: RuntimeSpec, name: string): void;
  applyRdtClass(spec: RuntimeSpec, name: string): void;
}

/** Makes an adjustment in a specification. @throws InvalidArgument for what cannot be */
export async function applyAdjustment(
  spec: RuntimeSpec,
  adjustment: ContainerAdjustment,
  tools: AdjustmentTools,
): Promise<void> {
  const { annotations, env, args, hooks, CDIDevices, linux, mounts, rlimits } = adjustment;
  if (!isEmpty(annotations)) spec.annotations = changed(spec.annotations, annotations, (value) => value);
  const process = processOf(spec);
  const named = env.filter(({ key }) => withoutMark(key) !== '');
  const names = new Map(named.map(({ key, value }) => [withoutMark(key), isRemoval(key) ? undefined : value]));
  if (names.size > 0) process.env = changedEnv(process.env ?? [], names);
  if (args.length > 0) process.args = [...args];
  for (const kind of hookKinds) {
    const added = hooks?.[kind] ?? [];
    if (added.length === 0) continue;
    spec.hooks = { ...spec.hooks, [kind]: [...(spec.hooks?.[kind] ?? []), ...added.map(toSpecHook)] };
  }
  if (CDIDevices.length > 0) {
    await tools.injectCdi(
      spec,
      CDIDevices.map(({ name }) => name),
    );
  }
  if (linux) applyLinux(spec, linux, tools);
  if (mounts.length > 0) applyMounts(spec, mounts);
  for (const { type, hard, soft } of rlimits) {
    const limit = { type, hard: specNumber(hard), soft: specNumber(soft) };
    // Not that of above: devices by name may have put another in its place.
    const target = processOf(spec);
    target.rlimits = [...(target.rlimits ?? []).filter((other) => other.type !== type), limit];
  }
}

const isEmpty = (table: object): boolean => Object.keys(table).length === 0;

/** A table after changes, some of which are removals. */
function changed<T, V>(
  table: Record<string, T> | undefined,
  changes: Record<string, V>,
  read: (value: V) => T,
): Record<string, T> {
  const result = { ...table };
  for (const key of Object.keys(changes)) if (isRemoval(key)) delete result[withoutMark(key)];
  for (const [key, value] of Object.entries(changes)) if (!isRemoval(key)) result[key] = read(value);
  return result;
}

/** Variables keep their places; new ones come last. */
function changedEnv(present: readonly string[], changes: Map<string, string | undefined>): string[] {
  const left = new Map(changes);
  const result = present.flatMap((entry) => {
    const name = entry.split('=', 1)[0]!;
    if (!changes.has(name)) return [entry];
    left.delete(name);
    const value = changes.get(name);
    return value === undefined ? [] : [`${name}=${value}`];
  });
  for (const [name, value] of left) if (value !== undefined) result.push(`${name}=${value}`);
  return result;
}

function toSpecHook({ path, args, env, timeout }: Hook): SpecHook {
  return {
    path,
    ...(args.length > 0 && { args: [...args] }),
    ...(env.length > 0 && { env: [...env] }),
    ...(timeout && { timeout: Number(timeout.value) }),
  };
}

function applyLinux(spec: RuntimeSpec, asked: LinuxContainerAdjustment, tools: AdjustmentTools): void {
  const linux = linuxOf(spec);
  const process = processOf(spec);
  for (const device of asked.devices) applyDevice(spec, linux, device);
  if (asked.cgroupsPath !== '') linux.cgroupsPath = asked.cgroupsPath;
  if (asked.oomScoreAdj) process.oomScoreAdj = Number(asked.oomScoreAdj.value);
  if (asked.ioPriority) {
    if (asked.ioPriority.class === IOPrioClass.IOPRIO_CLASS_NONE) delete process.ioPriority;
    else process.ioPriority = { class: IOPrioClass[asked.ioPriority.class], priority: asked.ioPriority.priority };
  }
  if (asked.scheduler) {
    const { policy, nice, priority, flags, runtime, deadline, period } = asked.scheduler;
    if (policy === LinuxSchedulerPolicy.SCHED_NONE) delete process.scheduler;
    else {
      process.scheduler = {
        policy: LinuxSchedulerPolicy[policy],
        ...(nice !== 0 && { nice }),
        ...(priority !== 0 && { priority }),
        ...(flags.length > 0 && { flags: flags.map((flag) => LinuxSchedulerFlag[flag]) }),
        ...(runtime !== 0n && { runtime: specNumber(runtime) }),
        ...(deadline !== 0n && { deadline: specNumber(deadline) }),
        ...(period !== 0n && { period: specNumber(period) }),
      };
    }
  }
  if (asked.seccompPolicy) linux.seccomp = toSpecSeccomp(asked.seccompPolicy);
  for (const namespace of asked.namespaces) applyNamespace(linux, namespace);
  if (!isEmpty(asked.sysctl)) linux.sysctl = changed(linux.sysctl, asked.sysctl, (value) => value);
  if (!isEmpty(asked.netDevices)) {
    linux.netDevices = changed(linux.netDevices, asked.netDevices, ({ name }) => (name === '' ? {} : { name }));
  }
  if (asked.memoryPolicy) {
    const { mode, nodes, flags } = asked.memoryPolicy;
    linux.memoryPolicy = {
      mode: MpolMode[mode],
      ...(nodes !== '' && { nodes }),
      ...(flags.length > 0 && { flags: flags.map((flag) => MpolFlag[flag]) }),
    };
  }
  if (asked.resources) {
    const { devices = [], ...limits } = toSpecResources(asked.resources);
    // Nought is no word on it, as in CRI.
    if (limits.memory?.limit === 0) delete limits.memory.limit;
    // Without a word on swap there is none beyond the memory.
    if (limits.memory?.limit !== undefined) limits.memory.swap ??= limits.memory.limit;
    // A negative number stands for no limit.
    if ((limits.pids?.limit ?? 0) < 0) limits.pids = {};
    const before = resourcesOf(spec);
    linux.resources = tools.mergeResources(before, limits);
    if (devices.length > 0) linux.resources.devices = [...(before.devices ?? []), ...devices];
    if (asked.resources.blockioClass) tools.applyBlockIoClass(spec, asked.resources.blockioClass.value);
    if (asked.resources.rdtClass) tools.applyRdtClass(spec, asked.resources.rdtClass.value);
  }
  if (asked.rdt) applyRdt(linux, asked.rdt);
}

const namespaceTypes: readonly string[] = ['pid', 'network', 'mount', 'ipc', 'uts', 'user', 'cgroup', 'time'];

/** Each keeps its place. */
function applyNamespace(linux: SpecLinux, { type, path }: LinuxNamespace): void {
  const kind = withoutMark(type) as SpecNamespace['type'];
  if (!namespaceTypes.includes(kind)) throw invalidArgument(`unrecognized namespace ${JSON.stringify(kind)}`);
  const namespace = { type: kind, ...(path !== '' && { path }) };
  const present = linux.namespaces ?? [];
  const at = present.findIndex((other) => other.type === kind);
  if (isRemoval(type)) linux.namespaces = present.filter((other) => other.type !== kind);
  else linux.namespaces = at < 0 ? [...present, namespace] : present.with(at, namespace);
}

const deviceTypes = { c: 'c', b: 'b', u: 'u', p: 'p' } as const;

function applyDevice(spec: RuntimeSpec, linux: SpecLinux, device: LinuxDevice): void {
  const path = withoutMark(device.path);
  const others = (linux.devices ?? []).filter((present) => present.path !== path);
  if (isRemoval(device.path)) {
    if (linux.devices) linux.devices = others;
    return;
  }
  const type = deviceTypes[device.type as keyof typeof deviceTypes];
  if (!type) throw invalidArgument(`device ${path}: invalid type ${JSON.stringify(device.type)}`);
  const [major, minor] = [specNumber(device.major), specNumber(device.minor)];
  const { fileMode, uid, gid } = device;
  linux.devices = [
    ...others,
    {
      path,
      type,
      major,
      minor,
      ...(fileMode && { fileMode: fileMode.value }),
      ...(uid && { uid: uid.value }),
      ...(gid && { gid: gid.value }),
    },
  ];
  const resources = resourcesOf(spec);
  const access = type === 'b' ? 'rwm' : 'rw';
  resources.devices = [...(resources.devices ?? []), { allow: true, type, major, minor, access }];
}

function toSpecSeccomp(policy: LinuxSeccomp): SpecSeccomp {
  const { defaultAction, defaultErrno, architectures, flags, listenerPath, listenerMetadata, syscalls } = policy;
  return {
    defaultAction,
    ...(defaultErrno && { defaultErrnoRet: defaultErrno.value }),
    ...(architectures.length > 0 && { architectures: [...architectures] }),
    ...(flags.length > 0 && { flags: [...flags] }),
    ...(listenerPath !== '' && { listenerPath }),
    ...(listenerMetadata !== '' && { listenerMetadata }),
    ...(syscalls.length > 0 && {
      syscalls: syscalls.map(({ names, action, errnoRet, args }) => ({
        names: [...names],
        action,
        ...(errnoRet && { errnoRet: errnoRet.value }),
        ...(args.length > 0 && {
          args: args.map(({ index, value, valueTwo, op }) => ({
            index,
            value: specNumber(value),
            valueTwo: specNumber(valueTwo),
            op,
          })),
        }),
      })),
    }),
  };
}

function applyRdt(linux: SpecLinux, { remove, closId, schemata, enableMonitoring }: LinuxRdt): void {
  if (remove) delete linux.intelRdt;
  if (closId) linux.intelRdt = { ...linux.intelRdt, closID: closId.value };
  if (schemata) linux.intelRdt = { ...linux.intelRdt, schemata: [...schemata.value] };
  if (enableMonitoring) linux.intelRdt = { ...linux.intelRdt, enableMonitoring: enableMonitoring.value };
}
