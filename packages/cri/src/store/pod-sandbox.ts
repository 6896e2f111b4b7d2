import type { Any } from '@bufbuild/protobuf/wkt';
import { failedPrecondition, jsonAny } from '@gantry/api';
import { type PodSandboxConfig, PodSandboxConfigSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { CniResult } from '@gantry/cni/pod-network.ts';
import { encodeJson, parseJson } from '@gantry/oci';
import { ExtensionType } from '../labels.ts';
import { fromJson, toJson } from '../wire-json.ts';

/** What does not change of a pod sandbox once it runs, and is kept with its record. */
export interface SandboxMetadata {
  id: string;
  /** `<name>_<namespace>_<uid>_<attempt>`. */
  name: string;
  config: PodSandboxConfig;
  /** '' with the host's network. */
  netnsPath: string;
  ip: string;
  additionalIps: string[];
  /** As requested: '' for the default one. */
  runtimeHandler: string;
  cniResult?: CniResult | undefined;
  processLabel: string;
}

export type SandboxState = 'ready' | 'notready' | 'unknown';

export interface SandboxStatusRecord {
  state: SandboxState;
  /** Of the pause process; 0 if there is none. */
  pid: number;
  /** Nanoseconds since 1970. */
  createdAt: bigint;
  exitedAt: bigint;
  exitStatus: number;
}

/** A pod sandbox as the daemon holds it in memory; it is rebuilt from records and tasks at start. */
export interface PodSandbox {
  readonly id: string;
  metadata: SandboxMetadata;
  status: SandboxStatusRecord;
  /** Name of its controller. */
  sandboxer: string;
  /** Settles when its process has ended. */
  exited: Promise<void>;
  /** A call stops or removes it, or has: nothing more is made or started in it. */
  ending?: boolean;
}

/** @throws FailedPrecondition if nothing can be made or started in it (any more) */
export function requireRunning({ id, status, ending }: PodSandbox): void {
  if (status.state !== 'ready' || ending) throw failedPrecondition(`sandbox container "${id}" is not running`);
}

/** The name that only one pod sandbox may have at a time. */
export function sandboxName(config: PodSandboxConfig): string {
  const { name = '', namespace = '', uid = '', attempt = 0 } = config.metadata ?? {};
  return [name, namespace, uid, attempt].join('_');
}

/** The extension of sandbox and container records that holds the metadata, in containerd's form. */
export function sandboxExtension(metadata: SandboxMetadata): Any {
  const { id, name, config, netnsPath, ip, additionalIps, runtimeHandler, cniResult, processLabel } = metadata;
  return jsonAny(
    ExtensionType.sandbox,
    encodeJson({
      Version: 'v1',
      Metadata: {
        ID: id,
        Name: name,
        Config: toJson(PodSandboxConfigSchema, config),
        NetNSPath: netnsPath,
        IP: ip,
        AdditionalIPs: additionalIps.length > 0 ? additionalIps : null,
        RuntimeHandler: runtimeHandler,
        CNIResult: cniResult ?? null,
        ProcessLabel: processLabel,
      },
    }),
  );
}

interface StoredMetadata {
  ID?: string;
  Name?: string;
  Config?: unknown;
  NetNSPath?: string;
  IP?: string;
  AdditionalIPs?: string[] | null;
  RuntimeHandler?: string;
  CNIResult?: CniResult | null;
  ProcessLabel?: string;
}

/** The metadata in an extension; undefined if there is none of this version. */
export function readSandboxExtension(extension: Any | undefined): SandboxMetadata | undefined {
  if (!extension) return undefined;
  const { Version, Metadata: stored } = parseJson<{ Version?: string; Metadata?: StoredMetadata }>(extension.value);
  if (Version !== 'v1' || !stored) return undefined;
  return {
    id: stored.ID ?? '',
    name: stored.Name ?? '',
    config: fromJson(PodSandboxConfigSchema, stored.Config),
    netnsPath: stored.NetNSPath ?? '',
    ip: stored.IP ?? '',
    additionalIps: stored.AdditionalIPs ?? [],
    runtimeHandler: stored.RuntimeHandler ?? '',
    cniResult: stored.CNIResult ?? undefined,
    processLabel: stored.ProcessLabel ?? '',
  };
}
