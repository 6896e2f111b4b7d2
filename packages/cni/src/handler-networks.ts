import { StatusError, unavailable } from '@gantry/api';
import type { CniSettings, HandlerNetworks } from './cni-settings.ts';
import { networkStatus } from './network-calls.ts';
import { readNetworkList } from './network-config.ts';
import { NetworkDirectory, type NetworkLog } from './network-directory.ts';
import { describeNetworks, type NamedNetwork } from './network-info.ts';

/** The network that every pod has besides those configured, when the loopback plugin is to bring it up. */
const loopback: NamedNetwork = {
  network: readNetworkList(`{
"cniVersion": "0.3.1",
"name": "cni-loopback",
"plugins": [{
  "type": "loopback"
}]
}`),
  interfaceName: 'lo',
};

/** How long a plugin may think about its status, milliseconds: it is asked every few seconds. */
const statusMs = 10_000;

/** What pods of one runtime handler are connected to. */
export class HandlerNetwork {
  readonly directory: NetworkDirectory;
  readonly #own: readonly NamedNetwork[];
  readonly #directories: readonly string[];
  #asking: Promise<void> | undefined;

  constructor(directory: NetworkDirectory, settings: CniSettings) {
    this.directory = directory;
    this.#own = settings.use_internal_loopback ? [] : [loopback];
    this.#directories = pluginDirectories(settings);
  }

  /** @throws FailedPrecondition if none is configured */
  networks(): NamedNetwork[] {
    const configured = this.directory.networks();
    return [...this.#own, ...configured.map((network, index) => ({ network, interfaceName: `eth${index}` }))];
  }

  /** Asks plugins that can be asked (1.1.0) whether they are ready. One question serves all who ask meanwhile. @throws StatusError if not */
  async status(): Promise<void> {
    const networks = this.networks();
    this.#asking ??= this.#ask(networks).finally(() => {
      this.#asking = undefined;
    });
    await this.#asking;
  }

  async #ask(networks: readonly NamedNetwork[]): Promise<void> {
    for (const { network } of networks)
      await networkStatus(network, { directories: this.#directories, timeoutMs: statusMs });
  }

  describe(): object {
    const configured = this.directory.loadStatus === 'OK' ? this.networks() : [...this.#own];
    return {
      PluginDirs: this.#directories,
      PluginConfDir: this.directory.directory,
      PluginMaxConfNum: this.directory.max,
      Prefix: 'eth',
      Networks: describeNetworks(configured),
    };
  }
}

/** The networks of all runtime handlers: their own, or the common ones. */
export class HandlerNetworkList {
  readonly common: HandlerNetwork;
  readonly #own = new Map<string, HandlerNetwork>();
  readonly #opened: Promise<unknown>;

  constructor(settings: CniSettings, runtimes: Readonly<Record<string, HandlerNetworks>>, log: NetworkLog) {
    const made = (directory: string, max: number) =>
      new HandlerNetwork(new NetworkDirectory(directory, max, log), settings);
    this.common = made(settings.conf_dir, settings.max_conf_num);
    for (const [name, { cni_conf_dir: directory, cni_max_conf_num: max }] of Object.entries(runtimes))
      if (directory !== '') this.#own.set(name, made(directory, max || settings.max_conf_num));
    this.#opened = Promise.all(this.all().map((each) => each.directory.open()));
  }

  all(): HandlerNetwork[] {
    return [this.common, ...this.#own.values()];
  }

  /** Once its files have been read. */
  async of(handler: string): Promise<HandlerNetwork> {
    await this.#opened;
    return this.#own.get(handler) ?? this.common;
  }

  /** For `Status` in verbose. */
  info(): Record<string, string> {
    const statuses = [['default', this.common] as const, ...this.#own].map(
      ([name, { directory }]) => [`lastCNILoadStatus.${name}`, directory.loadStatus] as const,
    );
    return {
      cniconfig: JSON.stringify(this.common.describe()),
      lastCNILoadStatus: this.common.directory.loadStatus,
      ...Object.fromEntries(statuses),
    };
  }

  close(): void {
    for (const { directory } of this.all()) directory.close();
  }
}

export function pluginDirectories({ bin_dir: single, bin_dirs: several }: CniSettings): string[] {
  return single !== '' ? [single] : several;
}

/** An error as one of a network that cannot be used now. */
export function networkUnavailable(error: unknown): StatusError {
  return unavailable(StatusError.from(error).message, error);
}
