import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import {
  ContainerState,
  type LinuxContainerResources,
  LinuxContainerResourcesSchema,
} from '@gantry/api/gen/cri/v1/api_pb.js';
import { parseJson, stringifyJson } from '@gantry/oci';
import { hasErrno } from '@gantry/sys';
import { fromJson, toJson } from '../wire-json.ts';

/** How a container fares. Times are nanoseconds since 1970, 0 for not yet. */
export interface ContainerStatusRecord {
  pid: number;
  createdAt: bigint;
  startedAt: bigint;
  finishedAt: bigint;
  exitCode: number;
  reason: string;
  message: string;
  /** Being started, or removed, by a call under way. Not kept. */
  starting: boolean;
  removing: boolean;
  /** What became of it while the daemon was away cannot be told. */
  unknown: boolean;
  /** To be restored from a checkpoint at its start. */
  restore?: boolean;
  resources?: LinuxContainerResources | undefined;
}

export function newStatus(createdAt: bigint, resources?: LinuxContainerResources): ContainerStatusRecord {
  return {
    pid: 0,
    createdAt,
    startedAt: 0n,
    finishedAt: 0n,
    exitCode: 0,
    reason: '',
    message: '',
    starting: false,
    removing: false,
    unknown: false,
    resources,
  };
}

export function stateOf(status: ContainerStatusRecord): ContainerState {
  if (status.unknown) return ContainerState.CONTAINER_UNKNOWN;
  if (status.finishedAt !== 0n) return ContainerState.CONTAINER_EXITED;
  if (status.startedAt !== 0n) return ContainerState.CONTAINER_RUNNING;
  if (status.createdAt !== 0n) return ContainerState.CONTAINER_CREATED;
  return ContainerState.CONTAINER_UNKNOWN;
}

export function statusFile(directory: string): string {
  return path.join(directory, 'status');
}

/** Keeps the status in a file of the container's directory, in containerd's form; whole at every moment. */
export async function writeStatus(directory: string, status: ContainerStatusRecord): Promise<void> {
  const text = stringifyJson({
    Version: 'v1',
    Pid: status.pid,
    CreatedAt: status.createdAt,
    StartedAt: status.startedAt,
    FinishedAt: status.finishedAt,
    ExitCode: status.exitCode,
    Reason: status.reason,
    Message: status.message,
    Unknown: status.unknown,
    Restore: status.restore ?? false,
    Resources: status.resources ? { linux: toJson(LinuxContainerResourcesSchema, status.resources) } : null,
  });
  const file = statusFile(directory);
  const write = () => writeFile(`${file}.new`, text, { mode: 0o600, flush: true });
  try {
    await write().catch(async (error) => {
      if (!hasErrno(error, 'ENOENT')) throw error;
      await mkdir(directory, { recursive: true, mode: 0o755 });
      await write();
    });
    await rename(`${file}.new`, file);
  } catch (error) {
    if (!hasErrno(error, 'ENOSPC', 'EDQUOT')) throw error;
    await rm(`${file}.new`, { force: true });
    await overwrite(file, text);
  }
}

/** On a disk without room for another file, in the blocks that it has: how a container ended matters more than a power cut just now. */
async function overwrite(file: string, text: string): Promise<void> {
  await using handle = await open(file, 'r+');
  const bytes = Buffer.from(text);
  await handle.write(bytes, 0, bytes.length, 0);
  await handle.truncate(bytes.length);
  await handle.datasync();
}

interface StoredStatus {
  Version?: string;
  Pid?: number;
  CreatedAt?: number | bigint;
  StartedAt?: number | bigint;
  FinishedAt?: number | bigint;
  ExitCode?: number;
  Reason?: string;
  Message?: string;
  Unknown?: boolean;
  Restore?: boolean;
  Resources?: { linux?: unknown } | null;
}

/** undefined if there is none, or none that can be read. */
export async function readStatus(directory: string): Promise<ContainerStatusRecord | undefined> {
  let stored: StoredStatus;
  try {
    stored = parseJson<StoredStatus>(await readFile(statusFile(directory)));
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (stored.Version !== 'v1') return undefined;
  const linux = stored.Resources?.linux;
  return {
    ...newStatus(BigInt(stored.CreatedAt ?? 0)),
    pid: stored.Pid ?? 0,
    startedAt: BigInt(stored.StartedAt ?? 0),
    finishedAt: BigInt(stored.FinishedAt ?? 0),
    exitCode: stored.ExitCode ?? 0,
    reason: stored.Reason ?? '',
    message: stored.Message ?? '',
    unknown: stored.Unknown ?? false,
    ...(stored.Restore && { restore: true }),
    resources: linux ? fromJson(LinuxContainerResourcesSchema, linux) : undefined,
  };
}
