import type { Any } from '@bufbuild/protobuf/wkt';
import { jsonAny } from '@gantry/api';
import { type ContainerConfig, ContainerConfigSchema, type PodSandboxConfig } from '@gantry/api/gen/cri/v1/api_pb.js';
import { encodeJson, parseJson, type SpecUser } from '@gantry/oci';
import { ExtensionType } from '../labels.ts';
import type { ContainerIo } from '../logs/container-logs.ts';
import type { StreamBridge } from '../run/stream-bridge.ts';
import { fromJson, toJson } from '../wire-json.ts';
import type { ContainerStatusRecord } from './container-status.ts';

/** What does not change of a container, and is kept with its record. */
export interface ContainerMetadata {
  id: string;
  /** `<container>_<pod>_<namespace>_<uid>_<attempt>`. */
  name: string;
  sandboxId: string;
  config: ContainerConfig;
  /** Digest of the image's configuration. */
  imageRef: string;
  /** '' for no log. */
  logPath: string;
  /** By name or number; '' for SIGTERM. */
  stopSignal: string;
  processLabel: string;
}

/** A container as the daemon holds it in memory; it is rebuilt from records, status files and tasks at start. */
export interface CriContainer {
  readonly id: string;
  readonly metadata: ContainerMetadata;
  /** Who its process runs as; absent if its specification does not say. */
  user?: SpecUser | undefined;
  status: ContainerStatusRecord;
  /** Its input and output, from its start on. */
  io?: ContainerIo | undefined;
  /** What brings its input and output from and to the runtime, where that is not done through FIFOs. */
  bridge?: StreamBridge | undefined;
  /** Settles when its process has ended and that is noted; already settled for one that was never started. */
  exited: Promise<void>;
  /** While a call starts it: settles, never with an error, when that is over. */
  starting?: Promise<void> | undefined;
  /** Whether StopContainer has sent its signal already: a second call does not send it again. */
  stopSignalled?: boolean;
}

/** The name that only one container may have at a time. */
export function containerName(config: ContainerConfig, sandbox: PodSandboxConfig): string {
  const { name = '', attempt = 0 } = config.metadata ?? {};
  const pod = sandbox.metadata;
  return [name, pod?.name ?? '', pod?.namespace ?? '', pod?.uid ?? '', attempt].join('_');
}

export function containerExtension(metadata: ContainerMetadata): Any {
  const { id, name, sandboxId, config, imageRef, logPath, stopSignal, processLabel } = metadata;
  return jsonAny(
    ExtensionType.container,
    encodeJson({
      Version: 'v1',
      Metadata: {
        ID: id,
        Name: name,
        SandboxID: sandboxId,
        Config: toJson(ContainerConfigSchema, config),
        ImageRef: imageRef,
        LogPath: logPath,
        StopSignal: stopSignal,
        ProcessLabel: processLabel,
      },
    }),
  );
}

interface StoredMetadata {
  ID?: string;
  Name?: string;
  SandboxID?: string;
  Config?: unknown;
  ImageRef?: string;
  LogPath?: string;
  StopSignal?: string;
  ProcessLabel?: string;
}

export function readContainerExtension(extension: Any | undefined): ContainerMetadata | undefined {
  if (!extension) return undefined;
  const { Version, Metadata: stored } = parseJson<{ Version?: string; Metadata?: StoredMetadata }>(extension.value);
  if (Version !== 'v1' || !stored) return undefined;
  return {
    id: stored.ID ?? '',
    name: stored.Name ?? '',
    sandboxId: stored.SandboxID ?? '',
    config: fromJson(ContainerConfigSchema, stored.Config),
    imageRef: stored.ImageRef ?? '',
    logPath: stored.LogPath ?? '',
    stopSignal: stored.StopSignal ?? '',
    processLabel: stored.ProcessLabel ?? '',
  };
}
