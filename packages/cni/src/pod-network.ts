import type { PodSandboxConfig } from '@gantry/api/gen/cri/v1/api_pb.js';

/** Networks of pods (the Container Network Interface). This file is the seam: verbs know nothing else of this folder. */

/** What the plugins have made, in the form in which containerd keeps it with the sandbox. */
export interface CniResult {
  Interfaces: Record<
    string,
    {
      IPConfigs: { IP: string; Gateway: string }[] | null;
      Mac: string;
      /** The network namespace it is in; '' for the host's. */
      Sandbox: string;
      PciID: string;
      SocketPath: string;
    }
  >;
  DNS: Record<string, unknown>[] | null;
  Routes: { dst: string; gw?: string }[] | null;
}

/** A pod as networks see it. */
export interface NetworkedPod {
  /** Sandbox id. */
  id: string;
  netnsPath: string;
  config: PodSandboxConfig;
  /** Of the runtime's configuration: a handler may have networks of its own. '' for the default handler. */
  runtimeHandler: string;
  /** What `setUp` gave; absent if it did not get that far. */
  result?: CniResult | undefined;
}

export interface PodAddresses {
  result: CniResult;
  /** The pod's address by `ip_pref`, and its others in order. */
  ip: string;
  additionalIps: string[];
}

/** Whether networks can be set up, as `Status` tells it. */
export interface NetworkStatus {
  ready: boolean;
  /** `NetworkPluginNotReady` with its message; '' when ready. */
  reason: string;
  message: string;
}

export interface PodNetwork {
  /** ADD of every network. @throws StatusError of the first that fails; what was added then is taken down again */
  setUp(pod: NetworkedPod, signal?: AbortSignal): Promise<PodAddresses>;
  /** DEL of every network, in reverse. A namespace that is gone, and a pod that was never set up, are well. */
  tearDown(pod: NetworkedPod): Promise<void>;
  status(runtimeHandler: string): Promise<NetworkStatus>;
  /** For `Status` in verbose: `cniconfig` and `lastCNILoadStatus` of each handler, JSON. */
  info(): Record<string, unknown>;
  /** Writes `conf_template` for this pod network, if that is configured and no configuration is there. */
  updatePodCidr(cidr: string): Promise<void>;
  /** Frees addresses of sandboxes that are no longer: called once after start with those that are. */
  sweep(sandboxIds: ReadonlySet<string>): Promise<void>;
  close(): Promise<void>;
}
