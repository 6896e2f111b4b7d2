import type { Logger, LogLevel } from '../log/logger.ts';
import type { ConfigSchema } from './config-schema.ts';

declare const instanceOf: unique symbol;

/** A plugin type, such as `io.containerd.content.v1`, that remembers what its instances are. */
export type PluginType<Instance> = string & { readonly [instanceOf]?: Instance };

export function pluginType<Instance>(type: string): PluginType<Instance> {
  return type;
}

/** What `Introspection.Plugins` shows of a plugin; `init` may add to it. */
export interface PluginMeta {
  /** As `linux/amd64`. */
  platforms: string[];
  exports: Record<string, string>;
  capabilities: string[];
}

/** What a plugin is given when it starts. */
export interface PluginContext<Config> {
  readonly config: Config;
  /** `<root>/<type>.<id>`; not created for it. */
  readonly root: string;
  /** `<state>/<type>.<id>`; not created for it. */
  readonly state: string;
  /** The daemon's own directories and addresses. */
  readonly daemon: {
    readonly root: string;
    readonly state: string;
    readonly address: string;
    readonly ttrpcAddress: string;
    /** The level below which nothing is logged. */
    readonly logLevel: LogLevel;
    readonly logFormat: 'text' | 'json';
    /** Lines of text tell where they stand in a trace, too. */
    readonly logTraceIds: boolean;
    /** Main threads are watched, those of shims too: after how many milliseconds a blocked one is told of (0: never). */
    readonly watchThreadsMs: number | undefined;
    /** Directory for temporary mounts and files, emptied at start. */
    readonly temp: string;
    /** Timeouts of `[timeouts]`, milliseconds. */
    timeout(name: string): number;
    /** `[stream_processors]`, by id. */
    readonly streamProcessors: Record<
      string,
      { accepts: string[]; returns: string; path: string; args: string[]; env: string[] }
    >;
    /** The directory of the running program's own files (shim bundle, workers). */
    readonly programDir: string;
  };
  readonly meta: PluginMeta;
  readonly log: Logger;
  /** The one instance of a type, or that with this id. @throws FailedPrecondition if it did not start. */
  get<Instance>(type: PluginType<Instance>, id?: string): Instance;
  /** All started instances of a type, by id. */
  all<Instance>(type: PluginType<Instance>): Map<string, Instance>;
  /** Every plugin of the daemon and how it fared, also those not started yet. For introspection. */
  statuses(): PluginStatus[];
  /** Runs at shutdown, last registered first. */
  onClose(fn: () => void | Promise<void>): void;
}

export interface PluginStatus {
  type: string;
  id: string;
  requires: string[];
  meta: PluginMeta;
  /** Absent: started. */
  error?: { skip: boolean; message: string; code: number } | undefined;
}

/**
 * One part of the daemon. The same object is what `ctr plugins ls` shows, what `gantryd config default` prints, and what an
 * embedder gives to `createDaemon`.
 */
// biome-ignore lint/suspicious/noExplicitAny: a list of plugins has to hold plugins of any configuration
export interface Plugin<Config = any, Instance = unknown> {
  readonly type: PluginType<Instance>;
  readonly id: string;
  /** Types (or `type.id`) that must have been tried before this one; `*` for all others. */
  readonly requires?: readonly string[];
  readonly config?: ConfigSchema<Config>;
  /** Platforms shown in the list; absent: `-`. */
  readonly platforms?: readonly string[];
  init(context: PluginContext<Config>): Instance | Promise<Instance>;
}

/** Identity with inference: `export const overlayfs = definePlugin({ … })`. */
export function definePlugin<Config, Instance>(plugin: Plugin<Config, Instance>): Plugin<Config, Instance> {
  return plugin;
}

/** Thrown by `init` when a plugin does not apply here: shown as `skip`, never a failure. */
export class PluginSkip extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'PluginSkip';
  }
}
