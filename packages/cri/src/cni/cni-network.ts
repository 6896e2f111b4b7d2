import { StatusError, unavailable } from '@gantry/api';
import { KeyedLock } from '@gantry/daemon/core/content/keyed-lock.ts';
import type { Logger } from '@gantry/daemon/core/log/logger.ts';
import type { CniSettings, RuntimeConfig } from '../config/runtime-config.ts';
import { addPodNetwork, deletePodNetwork } from './invoke-network.ts';
import { loadNetworks, type NetworkConfig } from './network-config.ts';
import type { NetworkedPod, NetworkStatus, PodAddresses, PodNetwork } from './pod-network.ts';
import { chooseAddresses, combineResults, type PluginResult } from './results.ts';

/** Networks by the configuration files of one directory for each runtime handler, read anew for each pod. */
export class CniNetwork implements PodNetwork {
  readonly #settings: CniSettings;
  readonly #runtimes: RuntimeConfig['containerd']['runtimes'];
  readonly #log: Logger;
  readonly #serial = new KeyedLock();

  constructor(settings: CniSettings, runtimes: RuntimeConfig['containerd']['runtimes'], log: Logger) {
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
    const release = this.#settings.setup_serially ? await this.#serial.acquire('', signal) : undefined;
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
