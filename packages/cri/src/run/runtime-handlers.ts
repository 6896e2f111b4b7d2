import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, isAny, packAny, unpackAny } from '@gantry/api';
import type { PodSandboxConfig } from '@gantry/api/gen/cri/v1/api_pb.js';
import { OptionsSchema as RuncOptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runtimeoptions/v1/api_pb.js';
import type { SpecIdMapping } from '@gantry/oci';
import type { RuntimeConfig, RuntimeHandlerConfig } from '../config/runtime-config.ts';
import { CriAnnotation } from '../labels.ts';
import type { Selinux } from '../selinux/selinux.ts';
import type { PodIdMapping } from '../spec/user-namespace.ts';
import { toJson } from '../wire-json.ts';

/** Names under which runc's options are understood. */
const runcTypes = new Set(['io.containerd.runc.v2', 'io.containerd.gantry.v1', '']);

/** Whether a runtime by that name takes runc's options. */
export function isRuncRuntime(name: string): boolean {
  return runcTypes.has(name);
}

export interface RuntimeHandler extends RuntimeHandlerConfig {
  name: string;
}

/** The handler that is there without a word of configuration. */
const plainRunc: RuntimeHandlerConfig = {
  runtime_type: 'io.containerd.runc.v2',
  runtime_path: '',
  pod_annotations: [],
  container_annotations: [],
  privileged_without_host_devices: false,
  privileged_without_host_devices_all_devices_allowed: false,
  cgroup_writable: false,
  base_runtime_spec: '',
  cni_conf_dir: '',
  cni_max_conf_num: 0,
  snapshotter: '',
  sandboxer: 'podsandbox',
  io_type: '',
  options: {},
};

/** The runtimes that pods can ask for by handler. */
export class RuntimeHandlers {
  readonly #settings: RuntimeConfig['containerd'];
  #platforms: Record<string, { snapshotter?: string }> = {};

  /** Who adds runtimes still has `runc`, as with containerd. */
  constructor(settings: RuntimeConfig['containerd']) {
    const { runtimes } = settings;
    this.#settings = { ...settings, runtimes: { runc: plainRunc, ...runtimes } };
  }

  names(): string[] {
    return Object.keys(this.#settings.runtimes);
  }

  /** `runtime_platforms`: snapshotters by handler, of those that have none themselves. */
  setPlatforms(platforms: Record<string, { snapshotter?: string }>): void {
    this.#platforms = platforms;
  }

  get defaultName(): string {
    return this.#settings.default_runtime_name;
  }

  has(handler: string): boolean {
    return (handler || this.#settings.default_runtime_name) in this.#settings.runtimes;
  }

  /** '' is the default one. @throws InvalidArgument if there is none of that name */
  get(handler: string): RuntimeHandler {
    const name = handler || this.#settings.default_runtime_name;
    const found = this.#settings.runtimes[name];
    if (!found) throw invalidArgument(`no runtime for "${name}" is configured`);
    return { ...found, name, snapshotter: found.snapshotter || (this.#platforms[name]?.snapshotter ?? '') };
  }

  /** The handler of a pod that is there; undefined if it is not configured any more. */
  find(config: PodSandboxConfig, handler: string): RuntimeHandler | undefined {
    const name = config.annotations[CriAnnotation.untrustedWorkload] === 'true' ? 'untrusted' : handler;
    return this.has(name) ? this.get(name) : undefined;
  }

  /** The handler of a new pod: what it asks for, or `untrusted` by annotation. @throws InvalidArgument */
  forPod(config: PodSandboxConfig, handler: string): RuntimeHandler {
    if (config.annotations[CriAnnotation.untrustedWorkload] !== 'true') return this.get(handler);
    const options = config.linux?.securityContext?.namespaceOptions;
    // What a sandbox of its own kind cannot give, an untrusted one is not given.
    if (
      config.linux?.securityContext?.privileged ||
      options?.network === 2 ||
      options?.pid === 2 ||
      options?.ipc === 2
    ) {
      throw invalidArgument('untrusted workload with host access is not allowed');
    }
    if (handler !== '' && handler !== 'untrusted') {
      throw invalidArgument(`untrusted workload with explicit runtime handler "${handler}" is not allowed`);
    }
    return this.get('untrusted');
  }
}

/** The SELinux label of a process under a runtime: of those that are virtual machines, it is theirs. */
export function processLabel(selinux: Selinux, handler: RuntimeHandler, label: string): string {
  return handler.runtime_type.includes('kata') ? selinux.forVirtualMachine(label) : label;
}

/** A shim binary given by path goes before the runtime's name. */
export function runtimeName(handler: RuntimeHandler): string {
  return handler.runtime_path || handler.runtime_type;
}

/** Options of one task: its streams are of root in its pod's user namespace, so that its processes may open them by name. */
export function taskOptions(options: Any | undefined, ids: PodIdMapping | undefined): Any | undefined {
  if (!ids || !options || !isAny(options, RuncOptionsSchema)) return options;
  const rootOf = ({ containerID, hostID }: SpecIdMapping): number => (containerID === 0 ? hostID : 0);
  const given = unpackAny(RuncOptionsSchema, options);
  return packAny(RuncOptionsSchema, { ...given, ioUid: rootOf(ids.uid), ioGid: rootOf(ids.gid) });
}

/** Options for the runtime, as its type wants them. @throws InvalidArgument for a value that is not what it should be */
export function runtimeOptions({ name, runtime_type: type, options }: RuntimeHandler): Any | undefined {
  const table = (options ?? {}) as Record<string, unknown>;
  const text = (key: string): string => {
    const value = table[key] ?? '';
    if (typeof value !== 'string') throw invalidArgument(`runtime ${name}: option ${key} must be a string`);
    return value;
  };
  const flag = (key: string): boolean => table[key] === true;
  const number = (key: string): number => Number(table[key] ?? 0);
  if (runcTypes.has(type)) {
    return packAny(RuncOptionsSchema, {
      noPivotRoot: flag('NoPivotRoot'),
      noNewKeyring: flag('NoNewKeyring'),
      shimCgroup: text('ShimCgroup'),
      ioUid: number('IoUid'),
      ioGid: number('IoGid'),
      binaryName: text('BinaryName'),
      root: text('Root'),
      systemdCgroup: flag('SystemdCgroup'),
      criuImagePath: text('CriuImagePath'),
      criuWorkPath: text('CriuWorkPath'),
    });
  }
  if (Object.keys(table).length === 0) return undefined;
  return packAny(OptionsSchema, {
    typeUrl: text('TypeUrl'),
    configPath: text('ConfigPath'),
    configBody: Buffer.from(text('ConfigBody'), 'utf8'),
  });
}

/** Options as they are told to who asks for everything: the fields of their message; null for none. */
export function toldOptions(handler: RuntimeHandler): object | null {
  const options = Object.keys(handler.options ?? {}).length > 0 ? runtimeOptions(handler) : undefined;
  if (!options) return null;
  return isRuncRuntime(handler.runtime_type)
    ? toJson(RuncOptionsSchema, unpackAny(RuncOptionsSchema, options))
    : toJson(OptionsSchema, unpackAny(OptionsSchema, options));
}

/** Whether the runtime makes cgroups through systemd. */
export function usesSystemdCgroups(handler: RuntimeHandler): boolean {
  return ((handler.options ?? {}) as Record<string, unknown>)['SystemdCgroup'] === true;
}
