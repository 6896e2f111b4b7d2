import { unknown } from '@gantry/api';
import { Protocol } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { NetworkConfig, PluginConfig } from './network-config.ts';
import type { NetworkedPod } from './pod-network.ts';
import type { PluginResult } from './results.ts';
import { type PluginCall, runPlugin } from './run-plugin.ts';

/** Calls the plugins of one network for one pod. */

/** ADD of each plugin, the result of one going to the next. */
export async function addPodNetwork(
  network: NetworkConfig,
  pod: NetworkedPod,
  interfaceName: string,
  directories: readonly string[],
  signal?: AbortSignal,
): Promise<PluginResult> {
  let previous: PluginResult | undefined;
  for (const plugin of network.plugins) {
    const config = pluginInput(network, plugin, pod, previous);
    const result = await runPlugin(plugin.type, config, callOf('ADD', pod, interfaceName, directories), signal);
    if (typeof result !== 'object' || result === null) {
      throw unknown(`plugin type=${JSON.stringify(plugin.type)} gave no result`);
    }
    previous = result as PluginResult;
  }
  return previous!;
}

/** DEL of each plugin, the last first. */
export async function deletePodNetwork(
  network: NetworkConfig,
  pod: NetworkedPod,
  interfaceName: string,
  directories: readonly string[],
): Promise<void> {
  for (const plugin of [...network.plugins].reverse()) {
    const config = pluginInput(network, plugin, pod, undefined);
    await runPlugin(plugin.type, config, callOf('DEL', pod, interfaceName, directories));
  }
}

function callOf(
  command: PluginCall['command'],
  pod: NetworkedPod,
  interfaceName: string,
  directories: readonly string[],
): PluginCall {
  const { name = '', namespace = '', uid = '' } = pod.config.metadata ?? {};
  const args = {
    IgnoreUnknown: '1',
    K8S_POD_NAMESPACE: namespace,
    K8S_POD_NAME: name,
    K8S_POD_INFRA_CONTAINER_ID: pod.id,
    K8S_POD_UID: uid,
  };
  return {
    command,
    containerId: pod.id,
    netns: pod.netnsPath,
    interfaceName,
    args: Object.entries(args)
      .map(([key, value]) => `${key}=${value}`)
      .join(';'),
    directories,
  };
}

function pluginInput(
  network: NetworkConfig,
  { capabilities, ...plugin }: PluginConfig,
  pod: NetworkedPod,
  previous: PluginResult | undefined,
): object {
  const runtimeConfig = Object.fromEntries(
    Object.entries(capabilityValues(pod)).filter(([name, value]) => capabilities?.[name] && value !== undefined),
  );
  return {
    ...plugin,
    ...(capabilities && { capabilities }),
    cniVersion: network.cniVersion,
    name: network.name,
    ...(previous && { prevResult: previous }),
    ...(Object.keys(runtimeConfig).length > 0 && { runtimeConfig }),
  };
}

/** What plugins are told if they say that they want to know. */
function capabilityValues({ config }: NetworkedPod): Record<string, unknown> {
  const ports = config.portMappings
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIp }) => ({
      hostPort,
      containerPort,
      protocol: (Protocol[protocol] ?? 'TCP').toLowerCase(),
      hostIP: hostIp,
    }));
  const dns = config.dnsConfig;
  return {
    portMappings: ports.length > 0 ? ports : undefined,
    dns: dns && { servers: dns.servers, searches: dns.searches, options: dns.options },
    cgroupPath: config.linux?.cgroupParent || undefined,
    'io.kubernetes.cri.pod-annotations':
      Object.keys(config.annotations).length > 0 ? { ...config.annotations } : undefined,
    bandwidth: bandwidth(config.annotations),
  };
}

const suffixes: Record<string, number> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/** `kubernetes.io/ingress-bandwidth` and `egress-bandwidth`, quantities of bits a second. */
function bandwidth(annotations: Record<string, string>): Record<string, number> | undefined {
  const rate = (key: string): number | undefined => {
    const match = /^(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$/.exec(annotations[key] ?? '');
    return match ? Math.ceil(Number(match[1]) * suffixes[match[2] ?? '']!) : undefined;
  };
  const ingressRate = rate('kubernetes.io/ingress-bandwidth');
  const egressRate = rate('kubernetes.io/egress-bandwidth');
  if (ingressRate === undefined && egressRate === undefined) return undefined;
  // A burst as large as the plugin's counter allows: only the rate is asked for.
  const burst = 2 ** 31 - 1;
  return {
    ...(ingressRate !== undefined && { ingressRate, ingressBurst: burst }),
    ...(egressRate !== undefined && { egressRate, egressBurst: burst }),
  };
}
