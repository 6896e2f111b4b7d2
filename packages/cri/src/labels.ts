/** Labels, extensions and annotations by which containerd's CRI marks what is its own. */

export const kubernetesNamespace = 'k8s.io';

export const CriLabel = {
  /** `sandbox` or `container`, on container records. */
  containerKind: 'io.cri-containerd.kind',
  /** `managed`, on image records that CRI shows. */
  image: 'io.cri-containerd.image',
  pinned: 'io.cri-containerd.pinned',
  /** Gantry's own: on the lease that a pod sandbox has, which is of no use without it. */
  sandboxLease: 'io.gantry.cri.sandbox',
} as const;

export const managedImage = { [CriLabel.image]: 'managed' } as const;

export const Extension = {
  sandbox: 'io.cri-containerd.sandbox.metadata',
  container: 'io.cri-containerd.container.metadata',
  /** Gantry's own: on the record of a pod sandbox that is being made. A daemon that finds one at start takes down what there is of it. */
  unfinished: 'io.gantry.cri.sandbox.unfinished',
} as const;

/** Type URLs of the JSON in these extensions. */
export const ExtensionType = {
  sandbox: 'github.com/containerd/cri/pkg/store/sandbox/Metadata',
  container: 'github.com/containerd/cri/pkg/store/container/Metadata',
  unfinished: 'io.gantry.cri/Unfinished',
} as const;

export const CriAnnotation = {
  containerType: 'io.kubernetes.cri.container-type',
  containerName: 'io.kubernetes.cri.container-name',
  sandboxId: 'io.kubernetes.cri.sandbox-id',
  sandboxName: 'io.kubernetes.cri.sandbox-name',
  sandboxNamespace: 'io.kubernetes.cri.sandbox-namespace',
  sandboxUid: 'io.kubernetes.cri.sandbox-uid',
  sandboxLogDirectory: 'io.kubernetes.cri.sandbox-log-directory',
  sandboxImageName: 'io.kubernetes.cri.podsandbox.image-name',
  sandboxCpuPeriod: 'io.kubernetes.cri.sandbox-cpu-period',
  sandboxCpuQuota: 'io.kubernetes.cri.sandbox-cpu-quota',
  sandboxCpuShares: 'io.kubernetes.cri.sandbox-cpu-shares',
  sandboxMemory: 'io.kubernetes.cri.sandbox-memory',
  imageName: 'io.kubernetes.cri.image-name',
  runtimeHandler: 'io.containerd.cri.runtime-handler',
  untrustedWorkload: 'io.kubernetes.cri.untrusted-workload',
} as const;
