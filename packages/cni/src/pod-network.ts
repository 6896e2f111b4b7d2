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
  /** ADD of every network. @throws StatusError of the first that fails; then, too, it is for the caller to take down what was added */
  setUp(pod: NetworkedPod, signal?: AbortSignal): Promise<PodAddresses>;
  /**
   * DEL of every network that was asked for, as it was configured then. A namespace that is gone, a pod that was never set up and one
   * that is taken down already are well.
   */
  tearDown(pod: NetworkedPod): Promise<void>;
  status(runtimeHandler: string): Promise<NetworkStatus>;
  /** CHECK of every network: that it is as it was made. @throws StatusError of the first that is not */
  check(pod: NetworkedPod, signal?: AbortSignal): Promise<void>;
  /** For `Status` in verbose, as it is to be said: `cniconfig`, and `lastCNILoadStatus` of each handler. */
  info(): Record<string, string>;
  /** Writes `conf_template` for this pod network, if that is configured and no configuration is there. */
  updatePodCidr(cidr: string): Promise<void>;
  /** Frees what sandboxes that are no longer have: called once, before anything is set up, with those that are. Tries again what fails. */
  sweep(sandboxIds: ReadonlySet<string>): Promise<void>;
  close(): Promise<void>;
}
