import type { ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import type { Container, ContainerEviction, ContainerUpdate, PodSandbox } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { listenUnix } from '@gantry/rpc';
import type { DefaultValidatorSettings } from './default-validator.ts';
import { type InstalledPlugin, installedPlugins, launchPlugin, pluginConfig } from './installed-plugins.ts';
import { NriEvents } from './nri-events.ts';
import type { NriObserver } from './nri-observer.ts';
import { type LinkOptions, PluginLink } from './plugin-link.ts';
import { PluginProcesses } from './plugin-processes.ts';
import { type PluginWire, socketWire } from './plugin-wire.ts';
import { isWasmFile, type PluginLogLevel, wasmWire } from './wasm/wasm-wire.ts';

export interface NriSettings {
  socketPath: string;
  pluginPath: string;
  pluginConfigPath: string;
  /** Where it is noted which processes installed plugins are. */
  processesPath: string;
  /** Milliseconds. */
  registrationTimeout: number;
  requestTimeout: number;
  /** No plugins but those that are installed. */
  disableConnections: boolean;
  validator: DefaultValidatorSettings;
  runtimeName: string;
  runtimeVersion: string;
  observer?: NriObserver | undefined;
}

/** What the host is asked for. */
export interface NriState {
  /** All that a plugin that has come is shown. */
  list(): Promise<{ pods: PodSandbox[]; containers: Container[] }>;
  /** Sets new limits; answers those that could not be set. */
  update(updates: readonly ContainerUpdate[]): Promise<ContainerUpdate[]>;
  /** Ends containers. */
  evict(evictions: readonly ContainerEviction[]): void;
  /** A plugin was built for an interface that is to go. */
  deprecated(plugin: string): void;
}

type HostLog = Record<PluginLogLevel, (message: string, fields?: Record<string, unknown>) => void>;

/** Longer than this many at once are not let in: each holds a descriptor. */
const mostConnections = 128;

/** Starts the plugins that are installed, lets others connect, and ends them. What goes wrong with a plugin is logged and goes no further. */
export class NriHost {
  readonly events: NriEvents;
  readonly #settings: NriSettings;
  readonly #state: NriState;
  readonly #log: HostLog;
  readonly #links = new Set<PluginLink>();
  readonly #processes = new Map<PluginLink, ChildProcess>();
  readonly #noted: PluginProcesses;
  #server: net.Server | undefined;
  #stopped = false;

  constructor(settings: NriSettings, state: NriState, log: HostLog) {
    this.#settings = settings;
    this.#noted = new PluginProcesses(settings.processesPath);
    this.#state = state;
    this.#log = log;
    this.events = new NriEvents(settings.validator);
  }

  /** Resolves when the installed plugins take part. */
  async start(): Promise<void> {
    const { pluginPath, disableConnections } = this.#settings;
    await this.#noted.endLeftOver();
    const installed = await installedPlugins(pluginPath, (file, reason) =>
      this.#log.warn('NRI plugin is not used', { file, error: reason }),
    );
    const started = await Promise.all(installed.map((plugin) => this.#launch(plugin)));
    const links = started.filter((link) => link !== undefined);
    for (const link of links) await this.#takeIn(link);
    if (!disableConnections) await this.#listen();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#server?.close();
    await Promise.all([...this.#links].map((link) => link.shutdown()));
    for (const child of this.#processes.values()) child.kill('SIGKILL');
  }

  async #launch(plugin: InstalledPlugin): Promise<PluginLink | undefined> {
    const { file } = plugin;
    try {
      const link = (await isWasmFile(file)) ? await this.#load(plugin) : await this.#run(plugin);
      await link.start((identity) => pluginConfig(this.#settings.pluginConfigPath, identity));
      return link;
    } catch (error) {
      this.#log.warn('installed NRI plugin could not be started', { file, error });
      return undefined;
    }
  }

  /** As a process. */
  async #run(plugin: InstalledPlugin): Promise<PluginLink> {
    const { process: child, connection } = await launchPlugin(plugin);
    const link = this.#linkTo(socketWire(connection), plugin);
    this.#processes.set(link, child);
    this.#noted.note(child.pid!);
    child.once('exit', () => {
      this.#noted.forget(child.pid!);
      this.#processes.delete(link);
      link.close();
    });
    return link;
  }

  /** As a module of WebAssembly, in a thread. */
  async #load(plugin: InstalledPlugin): Promise<PluginLink> {
    const name = `${plugin.index}-${plugin.name}`;
    const wire = await wasmWire(plugin.file, {
      loadTimeout: this.#settings.registrationTimeout,
      log: (level, message) => this.#log[level](message, { plugin: name }),
    });
    return this.#linkTo(wire, plugin);
  }

  #linkTo(wire: PluginWire, plugin?: InstalledPlugin): PluginLink {
    const link = new PluginLink(wire, this.#linkOptions(), plugin);
    this.#links.add(link);
    return link;
  }

  async #listen(): Promise<void> {
    const { socketPath } = this.#settings;
    const server = net.createServer((socket) => void this.#accept(socket));
    server.maxConnections = mostConnections;
    try {
      mkdirSync(path.dirname(socketPath), { recursive: true, mode: 0o700 });
      await listenUnix(server, socketPath, { mode: 0o600 });
      this.#server = server;
      this.#log.info('NRI plugins may connect', { socket: socketPath });
    } catch (error) {
      this.#log.warn('NRI plugins cannot connect', { socket: socketPath, error });
    }
  }

  async #accept(socket: net.Socket): Promise<void> {
    const link = this.#linkTo(socketWire(socket));
    try {
      // Those that come by themselves bring their configuration.
      await link.start(async () => '');
      await this.#takeIn(link);
    } catch (error) {
      this.#log.warn('NRI plugin could not be taken in', { plugin: link.name, error });
      link.close();
    }
  }

  /** Shows it what is there, while nothing else happens; from then on it takes part. */
  async #takeIn(link: PluginLink): Promise<void> {
    try {
      const updates = await this.events.exclusively(async () => {
        const { pods, containers } = await this.#state.list();
        const wanted = await link.synchronize(pods, containers);
        if (!this.#stopped) this.events.add(link);
        this.#settings.observer?.active(this.events.plugins.length);
        return wanted;
      });
      this.#log.info('NRI plugin is connected and synchronized', { plugin: link.name });
      const failed = await this.#state.update(updates);
      for (const { containerId } of failed) {
        this.#log.warn('limits that a NRI plugin wants cannot be set', { plugin: link.name, containerId });
      }
    } catch (error) {
      this.#log.warn('NRI plugin could not be synchronized', { plugin: link.name, error });
      link.close();
    }
  }

  #linkOptions(): LinkOptions {
    const { runtimeName, runtimeVersion, registrationTimeout, requestTimeout } = this.#settings;
    return {
      runtimeName,
      runtimeVersion,
      registrationTimeout,
      requestTimeout,
      onUpdate: async (updates, evictions, plugin) => {
        this.#log.info('NRI plugin changes limits', { plugin: plugin.name, containers: updates.length });
        this.#state.evict(evictions);
        return this.#state.update(updates);
      },
      onClose: (plugin) => {
        this.#links.delete(plugin);
        this.events.remove(plugin);
        this.#settings.observer?.active(this.events.plugins.length);
        this.#processes.get(plugin)?.kill('SIGKILL');
        if (!this.#stopped) this.#log.info('connection to NRI plugin is closed', { plugin: plugin.name });
      },
      onOldInterface: (plugin) => this.#state.deprecated(plugin.name),
      warn: (message, fields) => this.#log.warn(message, fields),
      observer: this.#settings.observer,
    };
  }
}
