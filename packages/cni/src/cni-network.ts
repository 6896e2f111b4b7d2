import { StatusError, unavailable } from '@gantry/api';
import type { CniSettings, HandlerNetworks } from './cni-settings.ts';
import { addPodNetwork, deletePodNetwork } from './invoke-network.ts';
import { loadNetworks, type NetworkConfig } from './network-config.ts';
import type { NetworkedPod, NetworkStatus, PodAddresses, PodNetwork } from './pod-network.ts';
import { chooseAddresses, combineResults, type PluginResult } from './results.ts';

/** Where warnings go: a `Logger` of the daemon is one. */
export interface NetworkLog {
  warn(message: string, fields?: Record<string, unknown>): void;
}

/** Networks by the configuration files of one directory for each runtime handler, read anew for each pod. */
export class CniNetwork implements PodNetwork {
  readonly #settings: CniSettings;
  readonly #runtimes: Readonly<Record<string, HandlerNetworks>>;
  readonly #log: NetworkLog;
  #last: Promise<unknown> = Promise.resolve();

  constructor(settings: CniSettings, runtimes: Readonly<Record<string, HandlerNetworks>>, log: NetworkLog) {
    this.#settings = settings;
    this.#runtimes = runtimes;
    this.#log = log;
  }

  #load(handler: string): Promise<NetworkConfig[]> {
    const own = this.#runtimes[handler];
    return own && own.cni_conf_dir !== ''
      ? loadNetworks(own.cni_conf_dir, own.cni_max_conf_num)
      : loadNetworks(this.#settings.conf_dir, this.#settings.max_conf_num);
  }

  #directories(): string[] {
    const { bin_dir: single, bin_dirs: several } = this.#settings;
    return single !== '' ? [single] : several;
  }

  async setUp(pod: NetworkedPod, signal?: AbortSignal): Promise<PodAddresses> {
    const networks = await this.#load(pod.runtimeHandler).catch((error) => {
      throw unavailable(`cni plugin not initialized: ${StatusError.from(error).message}`, error);
    });
    const release = this.#settings.setup_serially ? await this.#turn() : undefined;
    const results: PluginResult[] = [];
    try {
      for (const [index, network] of networks.entries()) {
        results.push(await addPodNetwork(network, pod, `eth${index}`, this.#directories(), signal));
      }
      const result = combineResults(results, pod.netnsPath);
      return { result, ...chooseAddresses(result, this.#settings.ip_pref) };
    } catch (error) {
      await this.tearDown(pod).catch((failure) => this.#log.warn('network cannot be taken down', { error: failure }));
      throw StatusError.wrap(error, `failed to setup network for sandbox "${pod.id}"`);
    } finally {
      release?.();
    }
  }

  /** Waits for those before; call the result to let the next one go on. */
  async #turn(): Promise<() => void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const before = this.#last;
    this.#last = before.then(() => promise);
    await before;
    return resolve;
  }

  async tearDown(pod: NetworkedPod): Promise<void> {
    const networks = await this.#load(pod.runtimeHandler).catch(() => []);
    const failures: unknown[] = [];
    for (const [index, network] of [...networks.entries()].reverse()) {
      await deletePodNetwork(network, pod, `eth${index}`, this.#directories()).catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw StatusError.wrap(failures[0], `failed to destroy network for sandbox "${pod.id}"`);
  }

  async status(handler: string): Promise<NetworkStatus> {
    try {
      await this.#load(handler);
      return { ready: true, reason: '', message: '' };
    } catch (error) {
      const message = `Network plugin returns error: ${StatusError.from(error).message}`;
      return { ready: false, reason: 'NetworkPluginNotReady', message };
    }
  }

  info(): Record<string, unknown> {
    const { conf_dir: directory, max_conf_num: max } = this.#settings;
    return { PluginConfDir: directory, PluginDirs: this.#directories(), PluginMaxConfNum: max, Prefix: 'eth' };
  }

  async updatePodCidr(): Promise<void> {}

  async sweep(): Promise<void> {}

  async close(): Promise<void> {}
}
