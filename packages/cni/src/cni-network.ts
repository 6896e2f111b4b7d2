import { create } from '@bufbuild/protobuf';
import { StatusError, unavailable } from '@gantry/api';
import { PodSandboxConfigSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { allSettled } from './all-settled.ts';
import type { CniSettings, HandlerNetworks } from './cni-settings.ts';
import { HandlerNetworkList, networkUnavailable, pluginDirectories } from './handler-networks.ts';
import { AttachmentLedger, attachmentOf, attachmentsOf, type LedgerEntry, type NetworkAttachment } from './ledger.ts';
import { addNetwork, type CachedCallOptions, checkNetwork, releaseNetwork } from './network-calls.ts';
import { readNetworkList } from './network-config.ts';
import type { NetworkLog } from './network-directory.ts';
import type { NamedNetwork } from './network-info.ts';
import type { PluginResult } from './plugin-result.ts';
import { podArgs, podCapabilities } from './pod-capabilities.ts';
import { podRanges, writePodNetwork } from './pod-cidr.ts';
import type { NetworkedPod, NetworkStatus, PodAddresses, PodNetwork } from './pod-network.ts';
import { ResultCache } from './result-cache.ts';
import { chooseAddresses, combineResults } from './results.ts';
import { NetworkSweep } from './sweep.ts';

/** How long DEL may take, milliseconds: nobody who waits for it gives a time. */
const deleteMs = 60_000;

export interface CniNetworkOptions {
  settings: CniSettings;
  /** By name of the runtime handler. */
  runtimes: Readonly<Record<string, HandlerNetworks>>;
  /** A directory of this daemon's own, in which it notes what it asks plugins for. */
  ledger: string;
  /** Where results are kept; default: where everyone does. */
  cache?: string;
  log: NetworkLog;
}

/** Networks of pods by CNI plugins and the configuration files of one directory for each runtime handler. */
export class CniNetwork implements PodNetwork {
  readonly #settings: CniSettings;
  readonly #handlers: HandlerNetworkList;
  readonly #ledger: AttachmentLedger;
  readonly #cache: ResultCache;
  readonly #log: NetworkLog;
  readonly #sweep: NetworkSweep;

  constructor({ settings, runtimes, ledger, cache, log }: CniNetworkOptions) {
    this.#settings = settings;
    this.#handlers = new HandlerNetworkList(settings, runtimes, log);
    this.#ledger = new AttachmentLedger(ledger);
    this.#cache = new ResultCache(cache);
    this.#log = log;
    this.#sweep = new NetworkSweep({
      ledger: this.#ledger,
      cache: this.#cache,
      handlers: this.#handlers,
      directories: pluginDirectories(settings),
      remove: async (id, entry) => this.#remove(entry ? attachmentsOf(entry) : await this.#unknown(id)),
      log,
    });
  }

  #options(signal?: AbortSignal): CachedCallOptions {
    return { directories: pluginDirectories(this.#settings), cache: this.#cache, signal };
  }

  async setUp(pod: NetworkedPod, signal?: AbortSignal): Promise<PodAddresses> {
    try {
      return await this.#setUp(pod, signal);
    } catch (error) {
      throw StatusError.wrap(error, `failed to setup network for sandbox "${pod.id}"`);
    }
  }

  async #setUp(pod: NetworkedPod, signal?: AbortSignal): Promise<PodAddresses> {
    const networks = await this.#networks(pod.runtimeHandler);
    const entry: LedgerEntry = {
      containerId: pod.id,
      netns: pod.netnsPath,
      args: podArgs(pod.id, pod.config),
      capabilityArgs: podCapabilities(pod.config),
      attachments: networks.map(({ network, interfaceName }) => ({ interfaceName, config: network.source })),
    };
    using _adding = await this.#sweep.adding();
    await this.#ledger.note(entry);
    const result = combineResults(await this.#add(networks, entry, signal));
    const addresses = chooseAddresses(result, this.#settings.ip_pref);
    if (addresses.ip === '') throw unavailable(`failed to find network info for sandbox "${pod.id}"`);
    return { result, ...addresses };
  }

  async #networks(handler: string): Promise<NamedNetwork[]> {
    const own = await this.#handlers.of(handler);
    try {
      return own.networks();
    } catch (error) {
      throw networkUnavailable(error);
    }
  }

  /** All at once, unless that is not wanted. The first error is thrown when none works any more. */
  async #add(networks: readonly NamedNetwork[], entry: LedgerEntry, signal?: AbortSignal): Promise<PluginResult[]> {
    const options = this.#options(signal);
    const add = ({ network, interfaceName }: NamedNetwork) =>
      addNetwork(network, attachmentOf(entry, interfaceName), options);
    if (!this.#settings.setup_serially) return await allSettled(networks.map(add));
    const results: PluginResult[] = [];
    for (const network of networks) results.push(await add(network));
    return results;
  }

  async tearDown(pod: NetworkedPod): Promise<void> {
    try {
      await this.#remove(await this.#attachments(pod));
      await this.#ledger.forget(pod.id);
    } catch (error) {
      throw StatusError.wrap(error, `failed to destroy network for sandbox "${pod.id}"`);
    }
  }

  async check(pod: NetworkedPod, signal?: AbortSignal): Promise<void> {
    for (const [network, attachment] of await this.#attachments(pod))
      await checkNetwork(network, attachment, this.#options(signal));
  }

  /** As it was asked for. What an older daemon, or another one, has set up is known by its cached results, or by what is configured now. */
  async #attachments(pod: NetworkedPod): Promise<NetworkAttachment[]> {
    const noted = await this.#ledger.get(pod.id);
    if (noted && noted !== 'damaged') return attachmentsOf({ ...noted, netns: pod.netnsPath });
    const cached = await this.#cache.list(pod.id);
    if (!noted && cached.length === 0 && pod.result === undefined) return [];
    if (cached.length > 0 && cached.every(({ config }) => isWhole(config))) {
      return cached.map(({ config, ...attachment }) => [
        readNetworkList(config),
        { ...attachment, netns: pod.netnsPath },
      ]);
    }
    const networks = await this.#networks(pod.runtimeHandler);
    const { id: containerId, netnsPath: netns, config } = pod;
    const known = { containerId, netns, args: podArgs(containerId, config), capabilityArgs: podCapabilities(config) };
    return networks.map(({ network, interfaceName }) => [network, { ...known, interfaceName }]);
  }

  /** Of a container that nothing else is known of. */
  async #unknown(containerId: string): Promise<NetworkAttachment[]> {
    const args = podArgs(containerId, create(PodSandboxConfigSchema));
    const networks = await this.#networks('');
    return networks.map(({ network, interfaceName }) => [
      network,
      { containerId, netns: '', interfaceName, args, capabilityArgs: {} },
    ]);
  }

  /** DEL of each; one that fails keeps none of the others. */
  async #remove(attachments: readonly NetworkAttachment[]): Promise<void> {
    const options = { ...this.#options(), timeoutMs: deleteMs };
    const remove = ([network, attachment]: NetworkAttachment) => releaseNetwork(network, attachment, options);
    const ordered = [...attachments].reverse();
    if (!this.#settings.setup_serially) {
      await allSettled(ordered.map(remove));
      return;
    }
    const failures: unknown[] = [];
    for (const each of ordered) await remove(each).catch((error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }

  async status(handler: string): Promise<NetworkStatus> {
    try {
      await (await this.#handlers.of(handler)).status();
      return { ready: true, reason: '', message: '' };
    } catch (error) {
      const message = `Network plugin returns error: ${StatusError.from(error).message}`;
      return { ready: false, reason: 'NetworkPluginNotReady', message };
    }
  }

  info(): Record<string, string> {
    return this.#handlers.info();
  }

  async updatePodCidr(podCidr: string): Promise<void> {
    const ranges = podRanges(podCidr);
    const { conf_template: template, conf_dir: directory } = this.#settings;
    if (template === '') {
      this.#log.info('no conf_template is set: some other part of the system has to write a CNI configuration');
      return;
    }
    const { ready } = await this.status('');
    if (!ready) await this.#handlers.common.directory.reload();
    if (ready || this.#handlers.common.directory.loadStatus === 'OK') {
      this.#log.info('a CNI configuration is there: none is made of conf_template', { directory });
      return;
    }
    await writePodNetwork(directory, template, ranges);
    await this.#handlers.common.directory.reload();
  }

  sweep(sandboxIds: ReadonlySet<string>): Promise<void> {
    return this.#sweep.start(sandboxIds);
  }

  async close(): Promise<void> {
    this.#handlers.close();
    this.#sweep.close();
  }
}

/** A list in the cache may leave out the plugins that it has in files of their own. */
function isWhole(config: string): boolean {
  try {
    return readNetworkList(config).plugins.length > 0;
  } catch {
    return false;
  }
}
