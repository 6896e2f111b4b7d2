// The daemon: configuration, one lock, plugins in order, sockets. The same object runs behind `gantryd` and inside any
// Node program.
import { chmodSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { callsInFlight } from '@gantry/rpc';
import { createLogger, parseLogLevel } from '../core/log/log-writer.ts';
import type { Logger, LogLevel } from '../core/log/logger.ts';
import type { Plugin, PluginContext, PluginStatus, PluginType } from '../core/plugin/plugin.ts';
import { PluginTypes } from '../core/plugin/plugin-types.ts';
import { holdTakeover } from '../core/takeover/takeover-state.ts';
import { version } from '../core/version/version.ts';
import { warnOf } from '../core/warnings/deprecations.ts';
import { deprecatedSettings } from './config/deprecated-settings.ts';
import { type LoadedConfig, loadConfig } from './config/load-config.ts';
import { activeResources } from './dump.ts';
import { lockRoot } from './lock.ts';
import { PluginSet } from './plugin-set.ts';
import { isServerInstance } from './plugins/server-instance.ts';
import { applyProcessSettings } from './process-settings.ts';
import { type ProxyFactory, proxyPlugins, withProxies } from './proxy-plugins.ts';
import { notifyServiceManager } from './service-manager.ts';
import { markPrograms, type ProgramMark } from './stray-programs.ts';
import { prepareTemp } from './temp.ts';

export interface DaemonOptions {
  /** What the daemon is made of; gantryd's own list is `builtinPlugins` of `@gantry/gantryd`. */
  plugins: readonly Plugin[];
  /** A configuration file. Absent: only `config` and defaults. */
  configPath?: string | undefined;
  /** Do not fail if the file does not exist. */
  configOptional?: boolean;
  /** A configuration as an object, in the shape of the TOML file; laid over the file. */
  config?: Record<string, unknown> | undefined;
  /** Overrides of single settings, as gantryd's flags: directories, the main socket, and the level of the log. */
  root?: string | undefined;
  state?: string | undefined;
  address?: string | undefined;
  logLevel?: LogLevel | undefined;
  /** Where the log goes. Default: lines on standard error, in the configured format. */
  log?: Logger;
  /** The directory of the program's own files. Default: that of the started script. */
  programDir?: string;
  /** Makes the plugins of `[proxy_plugins]`. */
  proxy?: ProxyFactory;
  /** The process is the daemon's own: it may set the OOM score, cgroup and TMPDIR and tell the service manager. */
  ownProcess?: boolean;
}

export interface Daemon {
  readonly root: string;
  readonly state: string;
  /** The main gRPC socket. */
  readonly address: string;
  readonly ttrpcAddress: string;
  readonly log: Logger;
  readonly config: LoadedConfig;
  /**
   * Takes the root, starts every plugin, opens the sockets.
   * @throws StatusError if another daemon has the root, or a required plugin or the main socket fails; all is closed again then.
   */
  start(): Promise<void>;
  /** Closes sockets, then plugins, last started first. Containers keep running. Safe to call twice. */
  close(): Promise<void>;
  /** How each plugin fared. */
  statuses(): PluginStatus[];
  /** The started instance of a plugin. @throws StatusError if there is none */
  get<Instance>(type: PluginType<Instance>, id?: string): Instance;
  /** Writes to the log what the daemon is busy with. */
  dump(): void;
}

const grpcUri = 'io.containerd.server.v1.grpc';
const ttrpcUri = 'io.containerd.server.v1.ttrpc';

/** Flags and options as a configuration that is laid over the file. */
function overrides(options: DaemonOptions): Record<string, unknown> {
  const config: Record<string, unknown> = { ...options.config };
  if (options.root !== undefined) config['root'] = options.root;
  if (options.state !== undefined) config['state'] = options.state;
  if (options.address !== undefined) {
    const plugins = (config['plugins'] ?? {}) as Record<string, Record<string, unknown>>;
    config['plugins'] = { ...plugins, [grpcUri]: { ...plugins[grpcUri], address: options.address } };
  }
  if (options.logLevel !== undefined) {
    config['debug'] = { ...(config['debug'] as Record<string, unknown> | undefined), level: options.logLevel };
  }
  return config;
}

function addressIn(config: LoadedConfig, plugins: readonly Plugin[], id: string): string {
  const plugin = plugins.find((one) => one.type === PluginTypes.Server && one.id === id);
  return plugin ? ((config.pluginConfig(plugin) as { address?: string }).address ?? '') : '';
}

/** Where there is a debug socket, threads are watched. */
function watchSetting(config: LoadedConfig, plugins: readonly Plugin[]): number | undefined {
  const plugin = plugins.find((one) => one.type === PluginTypes.Server && one.id === 'debug');
  const table = plugin && (config.pluginConfig(plugin) as { address: string; blocked_after: number });
  return table && table.address !== '' ? table.blocked_after : undefined;
}

/** Whether the configuration itself says where the ttrpc socket is. */
function ownTtrpcAddress(config: LoadedConfig): boolean {
  const tables = config.raw['plugins'] as Record<string, { address?: unknown }> | undefined;
  return typeof tables?.[ttrpcUri]?.address === 'string' && tables[ttrpcUri].address !== '';
}

/**
 * Reads and checks the configuration; nothing on the machine is touched before `start`.
 * @throws StatusError InvalidArgument for a configuration that is wrong, naming file, table and key
 */
export async function createDaemon(options: DaemonOptions): Promise<Daemon> {
  const config = await loadConfig({
    path: options.configPath,
    optional: options.configOptional ?? false,
    config: overrides(options),
    plugins: options.plugins,
  });
  return new AssembledDaemon(options, config);
}

class AssembledDaemon implements Daemon {
  readonly root: string;
  readonly state: string;
  readonly address: string;
  readonly ttrpcAddress: string;
  readonly log: Logger;
  readonly config: LoadedConfig;
  readonly #options: DaemonOptions;
  #plugins: PluginSet | undefined;
  #unlock: (() => void) | undefined;
  /** Of the containerd whose things this root has taken over. */
  #letGo: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: DaemonOptions, config: LoadedConfig) {
    const { server } = config;
    this.#options = options;
    this.config = config;
    this.root = path.resolve(server.root);
    this.state = path.resolve(server.state);
    this.address = addressIn(config, options.plugins, 'grpc');
    this.ttrpcAddress =
      ownTtrpcAddress(config) || this.address === ''
        ? addressIn(config, options.plugins, 'ttrpc')
        : `${this.address}.ttrpc`;
    this.log =
      options.log ??
      createLogger({
        level: parseLogLevel(server.debug.level) ?? 'info',
        format: server.debug.format === 'json' ? 'json' : 'text',
        traceIds: server.debug.log_trace_id,
      });
  }

  async start(): Promise<void> {
    const before = performance.now();
    try {
      await this.#start();
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#tell('READY=1');
    this.log.info(`gantryd successfully booted in ${((performance.now() - before) / 1000).toFixed(6)}s`);
  }

  async #start(): Promise<void> {
    const { server, warnings, files } = this.config;
    const log = this.log;
    log.info('starting gantryd', { revision: version.revision, version: version.version });
    for (const warning of warnings) log.warn(warning);
    if (files.length > 0) log.debug('configuration read', { files });
    // Other users reach single containers' files through the state directory, but list nothing; the root is nobody else's.
    for (const [dir, mode] of [
      [this.root, 0o700],
      [this.state, 0o711],
    ] as const) {
      mkdirSync(dir, { recursive: true, mode });
      chmodSync(dir, mode);
    }
    this.#unlock = lockRoot(this.root);
    this.#letGo = holdTakeover(this.root);
    if (this.#options.ownProcess) {
      applyProcessSettings(server, log);
      if (server.temp !== '') {
        mkdirSync(server.temp, { recursive: true, mode: 0o711 });
        process.env['TMPDIR'] = server.temp;
      }
    }
    const temp = path.join(this.root, 'tmpmounts');
    await prepareTemp(temp, log);
    const mark = markPrograms(this.root);
    // Only earlier daemons' programs are meant, so nobody has to wait for it.
    void mark.endStrays().then((ended) => {
      if (ended > 0) log.warn('ended programs that a killed daemon has left running', { processes: ended });
    });

    this.#plugins = new PluginSet({
      plugins: withProxies(this.#options.plugins, proxyPlugins(server, this.#options.proxy)),
      required: server.required_plugins,
      disabled: server.disabled_plugins,
      root: this.root,
      state: this.state,
      daemon: this.#context(temp, mark),
      log,
      config: (plugin) => this.config.pluginConfig(plugin),
    });
    await this.#plugins.init();
    await this.#warnOfSettings(this.#plugins);
    await this.#listen(this.#plugins);
  }

  /** Deprecated settings in use are shown to clients too. */
  async #warnOfSettings(plugins: PluginSet): Promise<void> {
    const service = plugins.all(PluginTypes.Warning).get('deprecations');
    if (!service) return;
    try {
      await Promise.all(deprecatedSettings(this.config.raw).map(({ name }) => warnOf(service, name)));
    } catch (error) {
      this.log.warn('cannot keep deprecation warnings', { error });
    }
  }

  /** What each plugin is told of the daemon. */
  #context(temp: string, mark: ProgramMark): PluginContext<unknown>['daemon'] {
    const { server } = this.config;
    const processors = Object.entries(server.stream_processors).map(([id, processor]) => {
      return [id, { ...processor, env: [...processor.env, mark.entry] }];
    });
    return {
      root: this.root,
      state: this.state,
      address: this.address,
      ttrpcAddress: this.ttrpcAddress,
      logLevel: parseLogLevel(server.debug.level) ?? 'info',
      logFormat: server.debug.format === 'json' ? 'json' : 'text',
      logTraceIds: server.debug.log_trace_id,
      watchThreadsMs: watchSetting(this.config, this.#options.plugins),
      temp,
      timeout: (name) => server.timeouts[name] ?? 0,
      streamProcessors: Object.fromEntries(processors),
      programDir: this.#options.programDir ?? path.dirname(path.resolve(process.argv[1] ?? '.')),
    };
  }

  /** Opens the sockets. Without the main one there is no daemon; the others may fail alone. */
  async #listen(plugins: PluginSet): Promise<void> {
    for (const [id, instance] of plugins.all(PluginTypes.Server)) {
      if (!isServerInstance(instance)) continue;
      try {
        await instance.start();
      } catch (error) {
        if (id === 'grpc') throw error;
        this.log.error('failed to serve', { id: `${PluginTypes.Server}.${id}`, error });
        plugins.fail(instance, error);
      }
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#plugins) this.#tell('STOPPING=1');
    await this.#plugins?.close();
    this.#letGo?.();
    this.#letGo = undefined;
    this.#unlock?.();
    this.#unlock = undefined;
  }

  statuses(): PluginStatus[] {
    return this.#plugins?.statuses() ?? [];
  }

  get<Instance>(type: PluginType<Instance>, id?: string): Instance {
    if (!this.#plugins) throw new Error('the daemon has not been started');
    return this.#plugins.get(type, id);
  }

  dump(): void {
    this.log.info('=== BEGIN state dump ===', activeResources());
    for (const { type, id, error } of this.statuses()) {
      this.log.info('plugin', {
        id: `${type}.${id}`,
        status: error ? (error.skip ? 'skip' : 'error') : 'ok',
        error: error?.message,
      });
    }
    for (const [id, instance] of this.#plugins?.all(PluginTypes.Server) ?? []) {
      if (isServerInstance(instance)) this.log.info('server', { id, ...instance.describe?.() });
    }
    for (const call of callsInFlight()) this.log.info('call in flight', { ...call });
    this.log.info('=== END state dump ===');
  }

  /** Tells the service manager; that it cannot be told is a warning. */
  #tell(state: string): void {
    if (!this.#options.ownProcess) return;
    try {
      notifyServiceManager(state);
    } catch (error) {
      this.log.warn('cannot tell the service manager', { state, error });
    }
  }
}
