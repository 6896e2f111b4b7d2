import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type ContainerAdjustment,
  ContainerAdjustmentSchema,
  type HooksSchema,
  type IOPrioClass,
  type LinuxContainerAdjustment,
  LinuxContainerAdjustmentSchema,
  type LinuxDeviceSchema,
  LinuxResourcesSchema,
  type LinuxSchedulerSchema,
  type LinuxSeccompSchema,
  type MountSchema,
  type MpolFlag,
  type MpolMode,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { type ResourceChanges, resources } from './resources.ts';

/** The protocol's mark of what is to go, before its key. */
const removed = (key: string): string => `-${key}`;

/**
 * What a plugin wants changed in a container that is about to be created. Every method answers the adjustment, so they can be chained.
 * The runtime refuses a change of what another plugin has changed already, unless that was removed first.
 */
export class Adjustment {
  readonly message: ContainerAdjustment = create(ContainerAdjustmentSchema);

  get isEmpty(): boolean {
    const { annotations, mounts, env, hooks, linux, rlimits, CDIDevices, args } = this.message;
    return (
      Object.keys(annotations).length === 0 &&
      [mounts, env, rlimits, CDIDevices, args].every((list) => list.length === 0) &&
      hooks === undefined &&
      linux === undefined
    );
  }

  annotate(key: string, value: string): this {
    this.message.annotations[key] = value;
    return this;
  }

  removeAnnotation(key: string): this {
    return this.annotate(removed(key), '');
  }

  mount(mount: Pick<MessageInitShape<typeof MountSchema>, 'destination' | 'source' | 'type' | 'options'>): this {
    this.message.mounts.push(create(ContainerAdjustmentSchema, { mounts: [mount] }).mounts[0]!);
    return this;
  }

  removeMount(destination: string): this {
    return this.mount({ destination: removed(destination) });
  }

  env(name: string, value: string): this {
    this.message.env.push(create(ContainerAdjustmentSchema, { env: [{ key: name, value }] }).env[0]!);
    return this;
  }

  removeEnv(name: string): this {
    return this.env(removed(name), '');
  }

  /** Sets the command, if no plugin before has. */
  args(...args: string[]): this {
    this.message.args = args;
    return this;
  }

  /** Sets the command, also over what plugins before have set: the empty first word says so. */
  replaceArgs(...args: string[]): this {
    return this.args('', ...args);
  }

  hooks(hooks: MessageInitShape<typeof HooksSchema>): this {
    const added = create(ContainerAdjustmentSchema, { hooks }).hooks!;
    const present = this.message.hooks;
    if (!present) this.message.hooks = added;
    else {
      for (const kind of [
        'prestart',
        'createRuntime',
        'createContainer',
        'startContainer',
        'poststart',
        'poststop',
      ] as const) {
        present[kind].push(...added[kind]);
      }
    }
    return this;
  }

  /** @param type `RLIMIT_NOFILE` and its like */
  rlimit(type: string, hard: number | bigint, soft: number | bigint = hard): this {
    const limit = { type, hard: BigInt(hard), soft: BigInt(soft) };
    this.message.rlimits.push(create(ContainerAdjustmentSchema, { rlimits: [limit] }).rlimits[0]!);
    return this;
  }

  /** A device by its CDI name, `vendor.com/class=name`. */
  cdiDevice(name: string): this {
    this.message.CDIDevices.push(create(ContainerAdjustmentSchema, { CDIDevices: [{ name }] }).CDIDevices[0]!);
    return this;
  }

  device(device: MessageInitShape<typeof LinuxDeviceSchema>): this {
    return this.#merge({ devices: [device] });
  }

  removeDevice(path: string): this {
    return this.device({ path: removed(path) });
  }

  /** Limits; what is absent stays as it is. */
  resources(changes: ResourceChanges): this {
    const linux = this.#linux();
    const before = linux.resources ?? create(LinuxResourcesSchema);
    const after = resources(changes);
    linux.resources = create(LinuxResourcesSchema, {
      ...before,
      ...(after.memory && { memory: { ...before.memory, ...after.memory } }),
      ...(after.cpu && {
        cpu: {
          ...before.cpu,
          ...after.cpu,
          cpus: after.cpu.cpus || (before.cpu?.cpus ?? ''),
          mems: after.cpu.mems || (before.cpu?.mems ?? ''),
        },
      }),
      ...(after.pids && { pids: after.pids }),
      ...(after.blockioClass && { blockioClass: after.blockioClass }),
      ...(after.rdtClass && { rdtClass: after.rdtClass }),
      hugepageLimits: [...before.hugepageLimits, ...after.hugepageLimits],
      unified: { ...before.unified, ...after.unified },
      devices: [...before.devices, ...after.devices],
    });
    return this;
  }

  cgroupsPath(path: string): this {
    this.#linux().cgroupsPath = path;
    return this;
  }

  oomScoreAdj(value: number): this {
    return this.#merge({ oomScoreAdj: { value: BigInt(value) } });
  }

  /** `IOPRIO_CLASS_NONE` takes away what the container has. */
  ioPriority(ioClass: IOPrioClass, priority = 0): this {
    return this.#merge({ ioPriority: { class: ioClass, priority } });
  }

  /** Joins the namespace at a path, or one of its own with an empty one. */
  namespace(type: string, path = ''): this {
    return this.#merge({ namespaces: [{ type, path }] });
  }

  removeNamespace(type: string): this {
    return this.namespace(removed(type));
  }

  sysctl(key: string, value: string): this {
    this.#linux().sysctl[key] = value;
    return this;
  }

  removeSysctl(key: string): this {
    return this.sysctl(removed(key), '');
  }

  /** Moves an interface of the host into the container, under a name there. */
  netDevice(hostInterface: string, name: string): this {
    return this.#merge({ netDevices: { ...this.#linux().netDevices, [hostInterface]: { name } } });
  }

  seccomp(policy: MessageInitShape<typeof LinuxSeccompSchema>): this {
    return this.#merge({ seccompPolicy: policy });
  }

  scheduler(scheduler: MessageInitShape<typeof LinuxSchedulerSchema>): this {
    return this.#merge({ scheduler });
  }

  memoryPolicy(mode: MpolMode, nodes: string, flags: MpolFlag[] = []): this {
    return this.#merge({ memoryPolicy: { mode, nodes, flags } });
  }

  rdt(settings: { closId?: string; schemata?: string[]; enableMonitoring?: boolean; remove?: boolean }): this {
    const { closId, schemata, enableMonitoring, remove = false } = settings;
    return this.#merge({
      rdt: {
        remove,
        ...(closId !== undefined && { closId: { value: closId } }),
        ...(schemata && { schemata: { value: schemata } }),
        ...(enableMonitoring !== undefined && { enableMonitoring: { value: enableMonitoring } }),
      },
    });
  }

  #linux(): LinuxContainerAdjustment {
    this.message.linux ??= create(LinuxContainerAdjustmentSchema);
    return this.message.linux;
  }

  #merge(change: MessageInitShape<typeof LinuxContainerAdjustmentSchema>): this {
    const linux = this.#linux();
    const added = create(LinuxContainerAdjustmentSchema, change);
    linux.devices.push(...added.devices);
    linux.namespaces.push(...added.namespaces);
    Object.assign(linux.netDevices, added.netDevices);
    for (const name of ['oomScoreAdj', 'ioPriority', 'seccompPolicy', 'scheduler', 'memoryPolicy', 'rdt'] as const) {
      if (added[name] !== undefined) Object.assign(linux, { [name]: added[name] });
    }
    return this;
  }
}
