import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseJson, stringifyJson } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';
import { type Attachment, checkContainerId, checkInterfaceName } from './attachment.ts';
import type { NetworkConfig } from './network-config.ts';
import { type PluginResult, readResult, resultAsVersion } from './plugin-result.ts';

/** What ADD gave, and what it was called with, for CHECK and DEL. */
export interface CachedAttachment extends Attachment {
  network: string;
  /** The network as it was configured then: a list, JSON. */
  config: string;
  /** As its plugin printed it; undefined if there is none. */
  result: unknown;
}

const kind = 'cniCacheV1';

interface CacheFile {
  kind?: string;
  containerId?: string;
  /** Base64. */
  config?: string;
  ifName?: string;
  networkName?: string;
  netns?: string;
  cniArgs?: [string, string][];
  capabilityArgs?: Record<string, unknown>;
  result?: unknown;
}

/** Where every user of the reference library keeps them, so that one takes down what another has set up. */
export const defaultCacheDirectory = '/var/lib/cni';

/** Results of ADD in files, one for each attachment, in the place and form of the reference library. */
export class ResultCache {
  readonly #directory: string;

  constructor(directory = defaultCacheDirectory) {
    this.#directory = path.join(directory, 'results');
  }

  #file(network: string, { containerId, interfaceName }: Attachment): string {
    checkContainerId(containerId);
    checkInterfaceName(interfaceName);
    return path.join(this.#directory, `${network}-${containerId}-${interfaceName}`);
  }

  async put(network: NetworkConfig, attachment: Attachment, result: PluginResult): Promise<void> {
    const { containerId, netns, interfaceName, args, capabilityArgs } = attachment;
    const entry: CacheFile = {
      kind,
      containerId,
      config: Buffer.from(network.source).toString('base64'),
      ifName: interfaceName,
      networkName: network.name,
      ...(netns !== '' && { netns }),
      ...(args.length > 0 && { cniArgs: args.map(([key, value]) => [key, value]) }),
      ...(Object.keys(capabilityArgs).length > 0 && { capabilityArgs }),
      result: resultAsVersion(result, result.cniVersion),
    };
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await writeFile(this.#file(network.name, attachment), stringifyJson(entry), { mode: 0o600 });
  }

  /** The result of an attachment's ADD, as plugins of a version take it; undefined if there is none that can be read. */
  async result(network: NetworkConfig, attachment: Attachment): Promise<object | undefined> {
    try {
      const entry = parseJson<CacheFile>(await readFile(this.#file(network.name, attachment)));
      // An older form of the cache is the result alone.
      const found = entry.kind === kind ? entry.result : entry;
      if (found == null) return undefined;
      return resultAsVersion(readResult(found, ''), network.cniVersion);
    } catch {
      return undefined;
    }
  }

  /** One that is not there is well. */
  async remove(network: string, attachment: Attachment): Promise<void> {
    await rm(this.#file(network, attachment), { force: true });
  }

  /** All that can be read, of one container or of all, by order of file names. */
  async list(containerId?: string): Promise<CachedAttachment[]> {
    const found: CachedAttachment[] = [];
    for (const name of (await this.#names()).sort()) {
      if (containerId !== undefined && !name.includes(`-${containerId}-`)) continue;
      const entry = await this.#read(name);
      if (entry && (containerId === undefined || entry.containerId === containerId)) found.push(entry);
    }
    return found;
  }

  async #names(): Promise<string[]> {
    try {
      return await readdir(this.#directory);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }

  async #read(name: string): Promise<CachedAttachment | undefined> {
    try {
      const entry = parseJson<CacheFile>(await readFile(path.join(this.#directory, name)));
      const { containerId = '', ifName = '', networkName = '', netns = '', config = '' } = entry;
      if (entry.kind !== kind || containerId === '' || ifName === '' || networkName === '') return undefined;
      return {
        containerId,
        interfaceName: ifName,
        netns,
        args: entry.cniArgs ?? [],
        capabilityArgs: entry.capabilityArgs ?? {},
        network: networkName,
        config: Buffer.from(config, 'base64').toString('utf8'),
        result: entry.result,
      };
    } catch {
      // Somebody else's, or half of one.
      return undefined;
    }
  }
}
