import { create } from '@bufbuild/protobuf';
import {
  type Container,
  type ContainerAdjustment,
  ContainerAdjustmentSchema,
  ContainerSchema,
  Field,
  type Hooks,
  HooksSchema,
  type KeyValue,
  type LinuxContainer,
  type LinuxContainerAdjustment,
  LinuxContainerSchema,
  type LinuxDevice,
  type LinuxNamespace,
  LinuxRdtSchema,
  type LinuxResources,
  LinuxResourcesSchema,
  type Mount,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { collectResources } from './collect-resources.ts';
import type { Owners } from './owners.ts';
import { isRemoval, withoutMark } from './removal-marks.ts';

const hookKinds = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'] as const;

/**
 * Gathers what plugins want of a container that is made, one after the other. `container` is how it looks with what they have asked
 * for so far, which the next is shown; `adjustment` is all of it.
 */
export class AdjustmentCollector {
  readonly container: Container;
  readonly adjustment: ContainerAdjustment = create(ContainerAdjustmentSchema, {
    // There also if empty: validators in Go look into them.
    hooks: {},
    linux: { resources: { memory: {}, cpu: {} } },
  });
  readonly #owners: Owners;
  readonly #linux: LinuxContainer;
  readonly #resources: LinuxResources;
  readonly #adjustedLinux: LinuxContainerAdjustment = this.adjustment.linux!;

  constructor(container: Container, owners: Owners) {
    this.container = create(ContainerSchema, container);
    this.container.linux ??= create(LinuxContainerSchema);
    this.#linux = this.container.linux;
    this.#linux.resources ??= create(LinuxResourcesSchema);
    this.#resources = this.#linux.resources;
    this.#owners = owners;
  }

  /** @throws InvalidArgument for what another plugin has set; naming both */
  add(asked: ContainerAdjustment, plugin: string): void {
    const { container, adjustment } = this;
    this.#map(Field.Annotations, plugin, asked.annotations, container.annotations, adjustment.annotations);
    const destination = (mount: Mount): string => mount.destination;
    this.#list(Field.Mounts, plugin, asked.mounts, destination, [container, 'mounts'], [adjustment, 'mounts']);
    this.#env(plugin, asked.env);
    this.#args(plugin, asked.args);
    if (asked.hooks) this.#hooks(plugin, asked.hooks);
    for (const limit of asked.rlimits) {
      this.#claim(Field.Rlimits, plugin, limit.type);
      container.rlimits = [...container.rlimits.filter(({ type }) => type !== limit.type), limit];
      adjustment.rlimits.push(limit);
    }
    for (const device of asked.CDIDevices) {
      this.#claim(Field.CdiDevices, plugin, device.name);
      adjustment.CDIDevices.push(device);
    }
    if (asked.linux) this.#addLinux(asked.linux, plugin);
  }

  #addLinux(asked: LinuxContainerAdjustment, plugin: string): void {
    const linux = this.#linux;
    const adjusted = this.#adjustedLinux;
    const path = (device: LinuxDevice): string => device.path;
    this.#list(Field.Devices, plugin, asked.devices, path, [linux, 'devices'], [adjusted, 'devices']);
    const targets = [this.#resources, adjusted.resources!];
    if (asked.resources) collectResources(this.#owners, this.container.id, plugin, asked.resources, targets);
    for (const namespace of asked.namespaces) this.#namespace(plugin, namespace);
    this.#map(Field.Sysctl, plugin, asked.sysctl, linux.sysctl, adjusted.sysctl);
    this.#map(Field.LinuxNetDevices, plugin, asked.netDevices, linux.netDevices, adjusted.netDevices);
    if (asked.cgroupsPath !== '') {
      this.#claim(Field.CgroupsPath, plugin);
      linux.cgroupsPath = adjusted.cgroupsPath = asked.cgroupsPath;
    }
    const simple = {
      oomScoreAdj: Field.OomScoreAdj,
      ioPriority: Field.IoPriority,
      seccompPolicy: Field.SeccompPolicy,
      scheduler: Field.LinuxSched,
      memoryPolicy: Field.MemoryPolicy,
    } as const;
    for (const [name, field] of Object.entries(simple)) {
      const value = asked[name as keyof typeof simple];
      if (value === undefined) continue;
      this.#claim(field, plugin);
      Object.assign(adjusted, { [name]: value });
      // The message of a container has no memory policy.
      if (name !== 'memoryPolicy') Object.assign(linux, { [name]: value });
    }
    this.#rdt(plugin, asked.rdt);
  }

  #claim(field: Field, plugin: string, key?: string): void {
    this.#owners.claim(this.container.id, field, plugin, key);
  }

  #map<T>(
    field: Field,
    plugin: string,
    asked: Record<string, T>,
    present: Record<string, T>,
    adjusted: Record<string, T>,
  ): void {
    for (const [key, value] of Object.entries(asked)) {
      if (!isRemoval(key)) continue;
      const name = withoutMark(key);
      this.#owners.clear(this.container.id, field, plugin, name);
      delete present[name];
      delete adjusted[name];
      adjusted[key] = value;
    }
    for (const [key, value] of Object.entries(asked)) {
      if (isRemoval(key)) continue;
      this.#claim(field, plugin, key);
      present[key] = value;
      adjusted[key] = value;
    }
  }

  /** @param present, adjusted where the lists are @returns the entries that are no removals */
  #list<K extends string, L extends string, T>(
    field: Field,
    plugin: string,
    asked: readonly T[],
    keyOf: (entry: T) => string,
    [presentIn, presentName]: readonly [{ [name in K]: T[] }, K],
    [adjustedIn, adjustedName]: readonly [{ [name in L]: T[] }, L],
  ): void {
    if (asked.length === 0) return;
    const removals = asked.filter((entry) => isRemoval(keyOf(entry)));
    const additions = asked.filter((entry) => !isRemoval(keyOf(entry)));
    const removed = new Set(removals.map((entry) => withoutMark(keyOf(entry))));
    for (const key of removed) this.#owners.clear(this.container.id, field, plugin, key);
    for (const entry of additions) this.#claim(field, plugin, keyOf(entry));
    const replaced = new Set([...removed, ...additions.map(keyOf)]);
    presentIn[presentName] = [
      ...presentIn[presentName].filter((entry) => !replaced.has(keyOf(entry))),
      ...additions,
    ] as (typeof presentIn)[K];
    adjustedIn[adjustedName] = [
      ...adjustedIn[adjustedName].filter((entry) => !removed.has(keyOf(entry))),
      ...removals,
      ...additions,
    ] as (typeof adjustedIn)[L];
  }

  #env(plugin: string, asked: readonly KeyValue[]): void {
    const present = this.container.env.map((entry) => {
      const [key = '', ...value] = entry.split('=');
      return { key, value: value.join('=') } as KeyValue;
    });
    const shown = { env: present };
    this.#list(Field.Env, plugin, asked, ({ key }) => key, [shown, 'env'], [this.adjustment, 'env']);
    if (asked.length > 0) this.container.env = shown.env.map(({ key, value }) => `${key}=${value}`);
  }

  #args(plugin: string, asked: readonly string[]): void {
    if (asked.length === 0) return;
    const replaces = asked[0] === '';
    if (replaces) this.#owners.clear(this.container.id, Field.Args, plugin);
    this.#claim(Field.Args, plugin);
    this.adjustment.args = this.container.args = asked.slice(replaces ? 1 : 0);
  }

  #hooks(plugin: string, asked: Hooks): void {
    if (hookKinds.every((kind) => asked[kind].length === 0)) return;
    for (const target of [this.container, this.adjustment]) {
      target.hooks ??= create(HooksSchema);
      for (const kind of hookKinds) target.hooks[kind] = [...target.hooks[kind], ...asked[kind]];
    }
    this.#owners.join(this.container.id, Field.OciHooks, plugin);
  }

  #namespace(plugin: string, namespace: LinuxNamespace): void {
    const type = withoutMark(namespace.type);
    this.#claim(Field.Namespace, plugin, type);
    const others = this.#linux.namespaces.filter((present) => present.type !== type);
    this.#linux.namespaces = isRemoval(namespace.type) ? others : [...others, namespace];
    this.#adjustedLinux.namespaces.push(namespace);
  }

  #rdt(plugin: string, asked: LinuxContainerAdjustment['rdt']): void {
    if (!asked) return;
    const fields = {
      closId: Field.RdtClosID,
      schemata: Field.RdtSchemata,
      enableMonitoring: Field.RdtEnableMonitoring,
    } as const;
    if (asked.remove) {
      for (const field of Object.values(fields)) this.#owners.clear(this.container.id, field, plugin);
      this.#adjustedLinux.rdt = create(LinuxRdtSchema, { remove: true });
    }
    this.#adjustedLinux.rdt ??= create(LinuxRdtSchema);
    const { rdt } = this.#adjustedLinux;
    for (const [name, field] of Object.entries(fields)) {
      const value = asked[name as keyof typeof fields];
      if (value === undefined) continue;
      this.#claim(field, plugin);
      Object.assign(rdt, { [name]: value });
    }
  }
}
