// Starts plugins in order, keeps how each fared, and closes them in reverse: the life of a daemon's parts.
import { Code, failedPrecondition, notFound, StatusError } from '@gantry/api';
import type { Logger } from '../core/log/logger.ts';
import {
  type Plugin,
  type PluginContext,
  type PluginMeta,
  PluginSkip,
  type PluginStatus,
  type PluginType,
} from '../core/plugin/plugin.ts';
import { orderPlugins, pluginUri } from './plugin-graph.ts';

interface Entry {
  readonly plugin: Plugin;
  readonly meta: PluginMeta;
  instance?: unknown;
  error?: unknown;
  state: 'waiting' | 'started' | 'failed';
}

export interface PluginSetOptions {
  readonly plugins: readonly Plugin[];
  /** `type.id` of plugins whose failure stops the daemon. */
  readonly required: readonly string[];
  /** `type.id` of plugins left out. */
  readonly disabled: readonly string[];
  readonly root: string;
  readonly state: string;
  readonly daemon: PluginContext<unknown>['daemon'];
  readonly log: Logger;
  /** The checked configuration of a plugin. */
  config(plugin: Plugin): unknown;
}

/** Whether an error says that a plugin does not apply here, itself or because one that it needs does not. */
export function isSkip(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (at instanceof PluginSkip) return true;
  return false;
}

/** The plugins of one daemon. */
export class PluginSet {
  readonly #options: PluginSetOptions;
  readonly #entries: Entry[];
  readonly #closers: { uri: string; fn: () => void | Promise<void> }[] = [];

  /** @throws StatusError FailedPrecondition if the requirements go in a circle or a required plugin is not in the list. */
  constructor(options: PluginSetOptions) {
    this.#options = options;
    const enabled = options.plugins.filter((plugin) => !options.disabled.includes(pluginUri(plugin)));
    this.#entries = orderPlugins(enabled).map((plugin) => ({
      plugin,
      meta: { platforms: [...(plugin.platforms ?? [])], exports: {}, capabilities: [] },
      state: 'waiting',
    }));
    const missing = options.required.filter((uri) => !enabled.some((plugin) => pluginUri(plugin) === uri));
    if (missing.length > 0) {
      throw failedPrecondition(`required plugin ${missing.join(', ')} is not included in this daemon or is disabled`);
    }
  }

  /** Starts each in turn. @throws the reason of a required plugin that did not start. */
  async init(): Promise<void> {
    for (const entry of this.#entries) {
      const uri = pluginUri(entry.plugin);
      const log = this.#options.log.with({ id: uri, type: entry.plugin.type });
      log.info('loading plugin');
      try {
        entry.instance = await entry.plugin.init(this.#context(entry));
        entry.state = 'started';
      } catch (error) {
        entry.error = error;
        entry.state = 'failed';
        if (isSkip(error)) log.info('skip loading plugin', { error });
        else log.warn('failed to load plugin', { error });
        if (this.#options.required.includes(uri)) throw StatusError.wrap(error, `load required plugin ${uri}`);
      }
    }
  }

  /** Marks a started plugin as failed after all, such as a server that could not listen. */
  fail(instance: unknown, error: unknown): void {
    const entry = this.#entries.find((one) => one.state === 'started' && one.instance === instance);
    if (!entry) return;
    entry.state = 'failed';
    entry.error = error;
    const uri = pluginUri(entry.plugin);
    if (this.#options.required.includes(uri)) throw StatusError.wrap(error, `start required plugin ${uri}`);
  }

  /** All started instances of a type, by id, in starting order. */
  all<Instance>(type: PluginType<Instance>): Map<string, Instance> {
    return new Map(
      this.#entries
        .filter((entry) => entry.plugin.type === type && entry.state === 'started')
        .map((entry) => [entry.plugin.id, entry.instance as Instance]),
    );
  }

  get<Instance>(type: PluginType<Instance>, id?: string): Instance {
    const name = id === undefined ? type : `${type}.${id}`;
    const found = this.#entries.filter(
      (entry) => entry.plugin.type === type && (id ?? entry.plugin.id) === entry.plugin.id,
    );
    const started = found.filter((entry) => entry.state === 'started');
    if (started.length === 1 || (started.length > 1 && id !== undefined)) return started[0]!.instance as Instance;
    if (started.length > 1) {
      const ids = started.map((entry) => entry.plugin.id).join(', ');
      throw failedPrecondition(`there is more than one plugin of type ${type}: ${ids}`);
    }
    const failed = found.find((entry) => entry.state === 'failed');
    if (failed) {
      const reason = StatusError.from(failed.error).message;
      throw new StatusError(Code.FailedPrecondition, `plugin ${pluginUri(failed.plugin)} did not start: ${reason}`, {
        cause: failed.error,
      });
    }
    if (found.length > 0) throw failedPrecondition(`plugin ${name} has not been started yet`);
    throw notFound(`no plugins registered for ${name}: plugin: not found`);
  }

  statuses(): PluginStatus[] {
    return this.#entries.map(({ plugin, meta, state, error }) => ({
      type: plugin.type,
      id: plugin.id,
      requires: [...(plugin.requires ?? [])],
      meta,
      ...(state === 'failed' && {
        error: { skip: isSkip(error), message: StatusError.from(error).message, code: StatusError.from(error).code },
      }),
    }));
  }

  /** Runs what the plugins registered with `onClose`, last first. One that fails is logged and does not hold up the others. */
  async close(): Promise<void> {
    for (let closer = this.#closers.pop(); closer; closer = this.#closers.pop()) {
      try {
        await closer.fn();
      } catch (error) {
        this.#options.log.error('failed to close plugin', { id: closer.uri, error });
      }
    }
  }

  #context(entry: Entry): PluginContext<unknown> {
    const uri = pluginUri(entry.plugin);
    const options = this.#options;
    return {
      config: options.config(entry.plugin),
      root: `${options.root}/${uri}`,
      state: `${options.state}/${uri}`,
      daemon: options.daemon,
      meta: entry.meta,
      log: options.log.with({ plugin: uri }),
      get: (type, id) => this.get(type, id),
      all: (type) => this.all(type),
      statuses: () => this.statuses(),
      onClose: (fn) => void this.#closers.push({ uri, fn }),
    };
  }
}
