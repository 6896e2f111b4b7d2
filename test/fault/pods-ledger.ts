import { ContainerState, type ContainerStatus, PodSandboxState } from '@gantry/api/gen/cri/v1/api_pb.js';
import { unknownExit, type Victim } from './outlive-lab.ts';
import type { ContainerConfig, PodConfig } from './pods-lab.ts';

/**
 * What a client of CRI was answered, and what it had asked without an answer, as far as that decides what may be seen after a kill. A state
 * that ends in -ing is of a call under way.
 */
export interface KnownPod {
  config: PodConfig;
  id?: string;
  state: 'making' | 'ready' | 'stopping' | 'stopped' | 'removing';
  containers: KnownContainer[];
}

export interface KnownContainer {
  pod: KnownPod;
  config: ContainerConfig;
  id?: string;
  state: 'making' | 'created' | 'starting' | 'running' | 'stopping' | 'ended' | 'removing';
  /** Ends by itself with this. */
  code?: number;
  /** What it was told to have ended with. */
  told?: number;
  /** A kill came while it may have run: nobody saw its end, perhaps. */
  unseen?: boolean;
}

/** Exit code of a container that runs until it gets SIGTERM. */
export const terminated = 3;

const ContainerStates = {
  created: ContainerState.CONTAINER_CREATED,
  running: ContainerState.CONTAINER_RUNNING,
  ended: ContainerState.CONTAINER_EXITED,
} as const;

type Seen = keyof typeof ContainerStates;

/** What a container may be; `undefined`: not there. */
function allowed({ state, code }: KnownContainer): (Seen | undefined)[] {
  switch (state) {
    case 'making':
      return [undefined, 'created'];
    case 'created':
      return ['created'];
    case 'starting':
      return ['created', 'running', 'ended'];
    case 'running':
      return code === undefined ? ['running'] : ['running', 'ended'];
    case 'stopping':
      return ['created', 'running', 'ended'];
    case 'ended':
      return ['ended'];
    case 'removing':
      return [undefined, 'created', 'running', 'ended'];
  }
}

/** What is wrong with what is seen of a container after a kill; undefined: nothing. */
export function wrongContainer(known: KnownContainer, seen: ContainerState | undefined): string | undefined {
  const may = allowed(known);
  if (seen === undefined ? may.includes(undefined) : may.some((one) => one && ContainerStates[one] === seen))
    return undefined;
  const name = `${known.pod.config.metadata?.name}/${known.config.metadata?.name}`;
  return `container ${name} (${known.id ?? 'no id'}) was ${known.state} and is ${seen === undefined ? 'not there' : ContainerState[seen]}`;
}

/** What is wrong with how a container is told to have ended. */
export function wrongExit(known: KnownContainer, status: ContainerStatus): string | undefined {
  if (status.state !== ContainerState.CONTAINER_EXITED) return undefined;
  const codes = exitCodes(known);
  if (codes.includes(status.exitCode)) return undefined;
  return `container ${known.id} (${known.state}) ended with ${status.exitCode} (${status.reason}), not one of ${codes}`;
}

function exitCodes({ state, code, told, unseen }: KnownContainer): number[] {
  if (told !== undefined) return [told];
  // A start that was cut off has failed then.
  const failed = state === 'starting' ? [128] : [];
  const lost = unseen ? [unknownExit] : [];
  // By a signal: SIGTERM before it could say that it minds, or SIGKILL.
  return [code ?? terminated, 143, 137, ...failed, ...lost];
}

export function wrongPod(known: KnownPod, seen: PodSandboxState | undefined): string | undefined {
  const { SANDBOX_READY: ready, SANDBOX_NOTREADY: notReady } = PodSandboxState;
  const may: Record<KnownPod['state'], (PodSandboxState | undefined)[]> = {
    making: [undefined, ready],
    ready: [ready],
    stopping: [ready, notReady],
    stopped: [notReady],
    removing: [undefined, ready, notReady],
  };
  if (may[known.state].includes(seen)) return undefined;
  return `pod ${known.config.metadata?.name} (${known.id ?? 'no id'}) was ${known.state} and is ${seen === undefined ? 'not there' : PodSandboxState[seen]}`;
}

/** Pods of all rounds that are there, or may be. */
export class PodLedger {
  readonly pods = new Set<KnownPod>();

  get containers(): KnownContainer[] {
    return [...this.pods].flatMap((pod) => pod.containers);
  }

  /** A kill: ends that come now may be nobody's to see. */
  suffer(victim: Victim, exitCodesKept: boolean): void {
    if (victim === 'daemon' || (victim === 'shim' && exitCodesKept)) return;
    for (const container of this.containers)
      if (container.state !== 'created' && container.state !== 'ended') container.unseen = true;
  }
}
