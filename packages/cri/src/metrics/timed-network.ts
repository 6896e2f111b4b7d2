import type { PodNetwork } from '@gantry/cni/pod-network.ts';
import type { CriMetrics } from './cri-metrics.ts';

/** A network whose calls are counted and timed. */
export function timedNetwork(network: PodNetwork, metrics: CriMetrics): PodNetwork {
  return {
    setUp: (pod, signal) =>
      metrics.time('sandbox_create_network', () => metrics.network('set_up_pod', () => network.setUp(pod, signal))),
    tearDown: (pod) =>
      metrics.time('sandbox_delete_network', () => metrics.network('tear_down_pod', () => network.tearDown(pod))),
    status: (handler) => metrics.network('get_pod_network_status', () => network.status(handler)),
    check: (pod, signal) => network.check(pod, signal),
    info: () => network.info(),
    updatePodCidr: (cidr) => network.updatePodCidr(cidr),
    sweep: (ids) => network.sweep(ids),
    close: () => network.close(),
  };
}
