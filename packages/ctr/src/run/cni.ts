// `--cni`: the first network of /etc/cni/net.d, set up and taken down by this program, as containerd's ctr does.
import { type Any, type Container, jsonAny } from '@gantry/client';
import { addNetwork, releaseNetwork } from '@gantry/cni/network-calls.ts';
import { loadNetworks, type NetworkConfig } from '@gantry/cni/network-config.ts';
import { ResultCache } from '@gantry/cni/result-cache.ts';
import { log } from '../output.ts';

const configDirectory = '/etc/cni/net.d';
const options = { directories: ['/opt/cni/bin'], cache: new ResultCache() };
const interfaceName = 'eth0';

/** The extension of a container record that says that its network is to be taken down with its task. */
const extensionName = 'ctr.cni-containerd.metadata';
const extensionType = 'github.com/containerd/containerd/v2/cmd/ctr/commands/NetworkMetaData';

export function cniExtension(): Record<string, Any> {
  return { [extensionName]: jsonAny(extensionType, JSON.stringify({ EnableCni: true })) };
}

/** A container's network. */
export class CniNetwork {
  readonly #network: NetworkConfig;
  readonly #id: string;

  private constructor(network: NetworkConfig, id: string) {
    this.#network = network;
    this.#id = id;
  }

  /** @throws StatusError if no network is configured */
  static async load(namespace: string, container: string): Promise<CniNetwork> {
    const [network] = await loadNetworks(configDirectory, 1);
    return new CniNetwork(network!, `${namespace}-${container}`);
  }

  /** Of a container that was made with `--cni`; undefined for others. */
  static async of(namespace: string, container: Container): Promise<CniNetwork | undefined> {
    const extension = container.extensions[extensionName];
    if (!extension) return undefined;
    const { EnableCni } = JSON.parse(Buffer.from(extension.value).toString('utf8')) as { EnableCni?: boolean };
    return EnableCni ? CniNetwork.load(namespace, container.id) : undefined;
  }

  /** Puts an interface into the network namespace of a process. What was set up is taken down again if it fails. */
  async setUp(pid: number): Promise<void> {
    try {
      await addNetwork(this.#network, this.#attachment(`/proc/${pid}/ns/net`), options);
    } catch (reason) {
      await this.takeDown();
      throw reason;
    }
  }

  /** A failure is told, and keeps nobody from going on. */
  async takeDown(): Promise<void> {
    try {
      await releaseNetwork(this.#network, this.#attachment(''), options);
    } catch (reason) {
      log('error', 'failed to remove network', { error: (reason as Error).message });
    }
  }

  #attachment(netns: string) {
    return { containerId: this.#id, netns, interfaceName, args: [], capabilityArgs: {} };
  }
}
