import { StatusError } from '@gantry/api';
import type { HandlerNetworkList } from './handler-networks.ts';
import { type AttachmentLedger, attachmentsOf, type LedgerEntry } from './ledger.ts';
import { netnsAlive, removeNetns } from './netns.ts';
import { collectNetwork, pluginVersions, type ValidAttachment } from './network-calls.ts';
import type { NetworkConfig } from './network-config.ts';
import type { NetworkLog } from './network-directory.ts';
import { orphansGone } from './orphans.ts';
import type { ResultCache } from './result-cache.ts';
import { knowsCommand } from './version.ts';

/** How long a plugin that a dead daemon called may go on until it is killed, milliseconds. */
const orphanMs = 10_000;

/** What cannot be freed is tried again after this, then after twice that, up to the last. */
const [firstRetryMs, lastRetryMs] = [30_000, 600_000];

const collectMs = 60_000;

export interface SweepOptions {
  ledger: AttachmentLedger;
  cache: ResultCache;
  handlers: HandlerNetworkList;
  /** Of plugins. */
  directories: readonly string[];
  /** DEL of all that is noted of a container; of all that is configured if the note cannot be read. */
  remove(id: string, entry: LedgerEntry | undefined): Promise<void>;
  log: NetworkLog;
}

/**
 * Frees what was asked for pods that are no longer. Only containers in the daemon's own ledger are ever taken down: what other
 * daemons, namespaces and programs have in the same networks is theirs.
 */
export class NetworkSweep {
  readonly #options: SweepOptions;
  readonly #adding = new Set<Promise<void>>();
  #collecting: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: SweepOptions) {
    this.#options = options;
  }

  /** Call it before anything is set up, with the sandboxes that there are. Settles after the first try. */
  async start(sandboxIds: ReadonlySet<string>): Promise<void> {
    // At once: whatever is noted later belongs to a living pod.
    const gone = this.#options.ledger.begin().filter((id) => !sandboxIds.has(id));
    await this.#free(gone, firstRetryMs);
    await this.#collect(sandboxIds);
  }

  async #free(ids: readonly string[], retryMs: number): Promise<void> {
    const { log } = this.#options;
    const left: string[] = [];
    for (const id of ids) {
      if (this.#closed) return;
      try {
        await this.#freeOne(id);
      } catch (error) {
        left.push(id);
        log.warn('network of a pod that is gone cannot be freed yet', { error, id });
      }
    }
    if (left.length === 0 || this.#closed) return;
    this.#timer = setTimeout(() => void this.#free(left, Math.min(retryMs * 2, lastRetryMs)), retryMs);
    this.#timer.unref();
  }

  async #freeOne(id: string): Promise<void> {
    const { ledger, remove, log } = this.#options;
    const noted = await ledger.get(id);
    const entry = noted === 'damaged' ? undefined : noted;
    const netns = entry?.netns ?? '';
    // What such a plugin does after its DEL nobody would undo.
    await orphansGone(id, orphanMs);
    await remove(id, entry && { ...entry, netns: netns !== '' && netnsAlive(netns) ? netns : '' });
    if (netns !== '') await removeNetns(netns);
    await ledger.forget(id);
    log.info('network of a pod that is gone is freed', { id });
  }

  /** Held while a container is added to networks: their plugins must not look for what is in use meanwhile. */
  async adding(): Promise<Disposable> {
    while (this.#collecting) await this.#collecting;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#adding.add(promise);
    return {
      [Symbol.dispose]: () => {
        this.#adding.delete(promise);
        resolve();
      },
    };
  }

  /** GC of all networks that know it. */
  async #collect(sandboxIds: ReadonlySet<string>): Promise<void> {
    const done = new Set<string>();
    for (const network of await this.#networks()) {
      if (this.#closed || done.has(network.name) || network.disableGC) continue;
      done.add(network.name);
      if (!knowsCommand(network.cniVersion, 'GC') || !(await this.#pluginsKnow(network))) continue;
      this.#collecting = this.#collectOne(network, sandboxIds);
      await this.#collecting;
      this.#collecting = undefined;
    }
  }

  async #networks(): Promise<NetworkConfig[]> {
    const { handlers } = this.#options;
    await handlers.of('');
    return handlers.all().flatMap(({ directory }) => (directory.loadStatus === 'OK' ? directory.networks() : []));
  }

  async #pluginsKnow(network: NetworkConfig): Promise<boolean> {
    const { directories, log } = this.#options;
    try {
      for (const { type } of network.plugins)
        if (!(await pluginVersions(type, { directories, timeoutMs: collectMs })).includes(network.cniVersion))
          return false;
      return true;
    } catch (error) {
      log.warn('versions of CNI plugins', { error, network: network.name });
      return false;
    }
  }

  async #collectOne(network: NetworkConfig, sandboxIds: ReadonlySet<string>): Promise<void> {
    const { log, directories } = this.#options;
    try {
      await Promise.all(this.#adding);
      const valid = await this.#inUse(network.name, sandboxIds);
      if (valid) await collectNetwork(network, valid, { directories, timeoutMs: collectMs });
      // Plugins would take away what they are not told of.
      else log.info('a CNI network has other users: its plugins are not told to collect', { network: network.name });
    } catch (error) {
      log.warn('CNI network cannot be collected', { network: network.name, error: StatusError.from(error) });
    }
  }

  /** All that this daemon has in a network; undefined if others have something there too. */
  async #inUse(name: string, sandboxIds: ReadonlySet<string>): Promise<ValidAttachment[] | undefined> {
    const { ledger, cache } = this.#options;
    const valid: ValidAttachment[] = [];
    const noted = await ledger.list();
    for (const entry of noted)
      for (const [{ name: of }, { interfaceName }] of attachmentsOf(entry))
        if (of === name) valid.push({ containerID: entry.containerId, ifname: interfaceName });
    const ours = new Set([...sandboxIds, ...noted.map(({ containerId }) => containerId)]);
    const known = new Set(valid.map(({ containerID, ifname }) => `${containerID} ${ifname}`));
    for (const { network, containerId, interfaceName } of await cache.list()) {
      if (network !== name || known.has(`${containerId} ${interfaceName}`)) continue;
      if (!ours.has(containerId)) return undefined;
      valid.push({ containerID: containerId, ifname: interfaceName });
    }
    return valid;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}
