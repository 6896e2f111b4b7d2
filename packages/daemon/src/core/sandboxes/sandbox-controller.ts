import type { Any } from '@bufbuild/protobuf/wkt';
import type { Time } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { Platform } from '@gantry/oci';
import type { RequestContext } from '../request-context.ts';
import type { SandboxInput } from './sandbox-store.ts';

export interface SandboxCreateOptions {
  rootfs?: Mount[];
  /** For the controller or its runtime, as the client sent it. */
  options?: Any | undefined;
  /** A network namespace to live in; '' or absent for one of its own, or none. */
  netnsPath?: string;
  annotations?: Record<string, string>;
}

/** A sandbox that has been started. */
export interface SandboxInstance {
  id: string;
  /** Of the process that stands for it, as this machine sees it; 0 if there is none. */
  pid: number;
  createdAt: Time;
  labels: Record<string, string>;
  /** Where its Task API is served, with the version that is; '' and 0 if not told. */
  address: string;
  version: number;
  /** The specification as the controller completed it. */
  spec?: Any | undefined;
}

export interface SandboxStatus {
  id: string;
  pid: number;
  /** `SANDBOX_READY` or `SANDBOX_NOTREADY`. */
  state: string;
  /** More for people, if asked for. */
  info: Record<string, string>;
  createdAt?: Time | undefined;
  exitedAt?: Time | undefined;
  extra?: Any | undefined;
  address: string;
  version: number;
}

export interface SandboxExit {
  exitStatus: number;
  exitedAt: Time;
}

export interface SandboxMetric {
  timestamp?: Time | undefined;
  id: string;
  data?: Any | undefined;
}

/**
 * Runs sandboxes: what gives containers a common surrounding, such as a virtual machine or the namespaces of a pod. Ids are of a
 * namespace. Implementations run the contract suite in `sandbox-controller-contract.ts`.
 *
 * Errors: NotFound for a sandbox that is not there, AlreadyExists for an id that is taken.
 */
export interface SandboxController {
  /**
   * Begins with what Start will need, if that can be made before Create: nothing of it may outlive the daemon without a record of the sandbox,
   * which may not be on disk yet. Create is to follow, or Shutdown.
   */
  prepare?(ctx: RequestContext, sandbox: SandboxInput): void;
  /** Sets up what the sandbox needs, without running it. */
  create(ctx: RequestContext, sandbox: SandboxInput, options?: SandboxCreateOptions): Promise<void>;
  start(ctx: RequestContext, id: string): Promise<SandboxInstance>;
  /** What containers in it have to be made for. */
  platform(ctx: RequestContext, id: string): Promise<Platform>;
  /** Ends it; one that has ended is well. @param timeoutSeconds how long it may take to end by itself; 0: the controller's own */
  stop(ctx: RequestContext, id: string, timeoutSeconds?: number): Promise<void>;
  /** Resolves when it has ended, at once if it has. */
  wait(ctx: RequestContext, id: string): Promise<SandboxExit>;
  status(ctx: RequestContext, id: string, verbose?: boolean): Promise<SandboxStatus>;
  /** Frees all that the sandbox has; it is not there afterwards. */
  shutdown(ctx: RequestContext, id: string): Promise<void>;
  metrics(ctx: RequestContext, id: string): Promise<SandboxMetric>;
  /** Takes over changed fields of the record. @param fields as the field mask of the Store's Update */
  update(ctx: RequestContext, id: string, sandbox: SandboxInput, fields: string[]): Promise<void>;
}
