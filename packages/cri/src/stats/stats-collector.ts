import type {
  ContainerStats,
  FilesystemUsage,
  MetricDescriptor,
  PodSandboxMetrics,
  PodSandboxStats,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import type { CriContainer } from '../store/cri-container.ts';
import type { PodSandbox } from '../store/pod-sandbox.ts';

/** Statistics and metrics of containers and pods. This file is the seam. */
export interface StatsCollector {
  /** undefined: nothing can be said of it now. @param containers those to choose from by filters already */
  containerStats(container: CriContainer): Promise<ContainerStats | undefined>;
  podStats(sandbox: PodSandbox, containers: readonly CriContainer[]): Promise<PodSandboxStats | undefined>;
  /** Disk use of images and of containers' own layers, by file system. */
  imageFilesystems(): Promise<FilesystemUsage[]>;
  metricDescriptors(): MetricDescriptor[];
  podMetrics(sandbox: PodSandbox, containers: readonly CriContainer[]): Promise<PodSandboxMetrics | undefined>;
  close(): Promise<void>;
}
