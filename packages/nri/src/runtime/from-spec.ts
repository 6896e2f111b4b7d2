import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type Container,
  ContainerSchema,
  HooksSchema,
  IOPrioClass,
  LinuxContainerSchema,
  LinuxSchedulerFlag,
  LinuxSchedulerPolicy,
  LinuxSeccompSchema,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import type { RuntimeSpec, SpecSeccomp } from '@gantry/oci';
import { wireNumber } from './spec-numbers.ts';
import { fromSpecResources } from './spec-resources.ts';

type ContainerInit = Exclude<MessageInitShape<typeof ContainerSchema>, Container>;

/** What a specification says about a container, as plugins are told it. */
export function containerFromSpec(spec: RuntimeSpec, more: ContainerInit): Container {
  const { process, mounts = [], hooks = {} } = spec;
  const container = create(ContainerSchema, {
    ...more,
    args: process?.args ?? [],
    env: process?.env ?? [],
    mounts: mounts.map(({ destination, type = '', source = '', options = [] }) => ({
      destination,
      type,
      source,
      options,
    })),
    rlimits: (process?.rlimits ?? []).map(({ type, hard, soft }) => ({
      type,
      hard: wireNumber(hard),
      soft: wireNumber(soft),
    })),
    ...(process && {
      user: { uid: process.user.uid, gid: process.user.gid, additionalGids: process.user.additionalGids ?? [] },
    }),
  });
  // There also if empty: plugins in Go look into it.
  container.hooks = create(
    HooksSchema,
    Object.fromEntries(
      Object.entries(hooks).map(([kind, list]) => [
        kind,
        list.map(({ path, args = [], env = [], timeout }) => ({
          path,
          args,
          env,
          ...(timeout !== undefined && { timeout: { value: BigInt(timeout) } }),
        })),
      ]),
    ),
  );
  container.linux = linuxFromSpec(spec);
  return container;
}

function linuxFromSpec({ linux = {}, process }: RuntimeSpec) {
  const { ioPriority, scheduler, oomScoreAdj } = process ?? {};
  const { intelRdt } = linux;
  return create(LinuxContainerSchema, {
    namespaces: (linux.namespaces ?? []).map(({ type, path = '' }) => ({ type, path })),
    devices: (linux.devices ?? []).map(({ path, type, major, minor, fileMode, uid, gid }) => ({
      path,
      type,
      major: wireNumber(major),
      minor: wireNumber(minor),
      ...(fileMode !== undefined && { fileMode: { value: fileMode } }),
      ...(uid !== undefined && { uid: { value: uid } }),
      ...(gid !== undefined && { gid: { value: gid } }),
    })),
    resources: fromSpecResources(linux.resources ?? {}),
    ...(oomScoreAdj !== undefined && { oomScoreAdj: { value: BigInt(oomScoreAdj) } }),
    cgroupsPath: linux.cgroupsPath ?? '',
    sysctl: linux.sysctl ?? {},
    netDevices: Object.fromEntries(
      Object.entries(linux.netDevices ?? {}).map(([device, { name = '' }]) => [device, { name }]),
    ),
    ...(ioPriority && {
      ioPriority: {
        class: IOPrioClass[ioPriority.class as keyof typeof IOPrioClass],
        priority: ioPriority.priority,
      },
    }),
    ...(scheduler && {
      scheduler: {
        policy: LinuxSchedulerPolicy[scheduler.policy as keyof typeof LinuxSchedulerPolicy],
        nice: scheduler.nice ?? 0,
        priority: scheduler.priority ?? 0,
        flags: (scheduler.flags ?? []).map((flag) => LinuxSchedulerFlag[flag as keyof typeof LinuxSchedulerFlag]),
        runtime: wireNumber(scheduler.runtime ?? 0),
        deadline: wireNumber(scheduler.deadline ?? 0),
        period: wireNumber(scheduler.period ?? 0),
      },
    }),
    ...(linux.seccomp && { seccompPolicy: seccompFromSpec(linux.seccomp) }),
    ...(intelRdt && {
      rdt: {
        ...(intelRdt.closID !== undefined && { closId: { value: intelRdt.closID } }),
        ...(intelRdt.schemata && { schemata: { value: intelRdt.schemata } }),
        ...(intelRdt.enableMonitoring !== undefined && { enableMonitoring: { value: intelRdt.enableMonitoring } }),
      },
    }),
  });
}

function seccompFromSpec(policy: SpecSeccomp) {
  const { defaultAction, defaultErrnoRet, architectures = [], flags = [], syscalls = [] } = policy;
  return create(LinuxSeccompSchema, {
    defaultAction,
    ...(defaultErrnoRet !== undefined && { defaultErrno: { value: defaultErrnoRet } }),
    architectures,
    flags,
    listenerPath: policy.listenerPath ?? '',
    listenerMetadata: policy.listenerMetadata ?? '',
    syscalls: syscalls.map(({ names, action, errnoRet, args = [] }) => ({
      names,
      action,
      ...(errnoRet !== undefined && { errnoRet: { value: errnoRet } }),
      args: args.map(({ index, value, valueTwo = 0, op }) => ({
        index,
        value: wireNumber(value),
        valueTwo: wireNumber(valueTwo),
        op,
      })),
    })),
  });
}
