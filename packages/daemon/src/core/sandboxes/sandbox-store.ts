import type { Any } from '@bufbuild/protobuf/wkt';
import type { Time } from '@gantry/api';
import type { RequestContext } from '../request-context.ts';

/** A group of containers with a common surrounding, as it is recorded; the running one is its controller's. */
export interface Sandbox {
  id: string;
  labels: Record<string, string>;
  runtime: { name: string; options?: Any | undefined };
  /** As the client sent it; never re-serialised. */
  spec?: Any | undefined;
  /** Name of the controller that runs it: `podsandbox`, `shim`. */
  sandboxer: string;
  createdAt: Time;
  updatedAt: Time;
  extensions: Record<string, Any>;
}

export type SandboxInput = Omit<Sandbox, 'createdAt' | 'updatedAt'>;

/** Sandbox records. Errors as containerd's: `sandbox "x" not found: not found`. */
export interface SandboxStore {
  get(ctx: RequestContext, id: string): Promise<Sandbox>;
  /** Filters: `id`, `sandboxer`, `runtime.name`, `labels."x"`. */
  list(ctx: RequestContext, filters?: string[]): Promise<Sandbox[]>;
  /** Without a sandboxer the namespace's default is taken, else none is noted. */
  create(ctx: RequestContext, sandbox: SandboxInput): Promise<Sandbox>;
  /** `paths`: `labels`, `labels.key`, `extensions`, `extensions.key`, `runtime`, `spec`; empty: labels, extensions, runtime and spec. */
  update(ctx: RequestContext, sandbox: SandboxInput, paths: string[]): Promise<Sandbox>;
  delete(ctx: RequestContext, id: string): Promise<void>;
}
