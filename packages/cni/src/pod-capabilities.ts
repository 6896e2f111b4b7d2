import { invalidArgument, StatusError } from '@gantry/api';
import { type PodSandboxConfig, Protocol } from '@gantry/api/gen/cri/v1/api_pb.js';
import { parseQuantity } from './quantity.ts';

/** What plugins are told of a pod, each if it says that it wants to know. @throws InvalidArgument for annotations that make no sense */
export function podCapabilities(config: PodSandboxConfig): Record<string, unknown> {
  const ports = config.portMappings
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIp }) => ({
      hostPort,
      containerPort,
      protocol: (Protocol[protocol] ?? 'TCP').toLowerCase(),
      hostIP: hostIp,
    }));
  const dns = config.dnsConfig;
  const cgroupPath = config.linux?.cgroupParent ?? '';
  const limits = bandwidth(config.annotations);
  return {
    'io.kubernetes.cri.pod-annotations': { ...config.annotations },
    ...(ports.length > 0 && { portMappings: ports }),
    ...(limits && { bandwidth: limits }),
    ...(dns && { dns: { servers: dns.servers, searches: dns.searches, options: dns.options } }),
    ...(cgroupPath !== '' && { cgroupPath }),
  };
}

/** `CNI_ARGS` of a pod, which plugins that do not know them are told to ignore. */
export function podArgs(id: string, config: PodSandboxConfig): [string, string][] {
  const { name = '', namespace = '', uid = '' } = config.metadata ?? {};
  return [
    ['IgnoreUnknown', '1'],
    ['K8S_POD_NAMESPACE', namespace],
    ['K8S_POD_NAME', name],
    ['K8S_POD_INFRA_CONTAINER_ID', id],
    ['K8S_POD_UID', uid],
  ];
}

/** As large as plugins count: only the rate is asked for. */
const burst = 2 ** 32 - 1;

/** `kubernetes.io/ingress-bandwidth` and `egress-bandwidth`, quantities of bits a second. */
function bandwidth(annotations: Record<string, string>): Record<string, number> | undefined {
  const ingressRate = rate(annotations['kubernetes.io/ingress-bandwidth']);
  const egressRate = rate(annotations['kubernetes.io/egress-bandwidth']);
  if (ingressRate === undefined && egressRate === undefined) return undefined;
  return {
    ...(ingressRate !== undefined && { ingressRate, ingressBurst: burst }),
    ...(egressRate !== undefined && { egressRate, egressBurst: burst }),
  };
}

function rate(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  try {
    const value = parseQuantity(text);
    if (value < 10n ** 3n) throw invalidArgument('resource is unreasonably small (< 1kbit)');
    if (value > 10n ** 15n) throw invalidArgument('resource is unreasonably large (> 1Pbit)');
    return Number(value);
  } catch (error) {
    throw StatusError.wrap(error, 'get cni namespace options: reading pod bandwidth annotations');
  }
}
