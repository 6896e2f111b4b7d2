import type { Any } from '@bufbuild/protobuf/wkt';
import type { Time } from '@gantry/api';
import type { RequestContext } from '../request-context.ts';

export interface Container {
  id: string;
  labels: Record<string, string>;
  image: string;
  runtime: { name: string; options?: Any | undefined };
  /** The OCI runtime spec as the client sent it; never re-serialised. */
  spec?: Any | undefined;
  snapshotter: string;
  snapshotKey: string;
  createdAt: Time;
  updatedAt: Time;
  extensions: Record<string, Any>;
  sandboxId: string;
}

export type ContainerInput = Omit<Container, 'createdAt' | 'updatedAt'>;

/** Container records. Errors as containerd's: `container "x" in namespace "y": not found`. */
export interface ContainerStore {
  get(ctx: RequestContext, id: string): Promise<Container>;
  /** Filters: `id`, `image`, `runtime.name`, `snapshotter`, `snapshotkey`, `sandboxid`, `labels."x"`. */
  list(ctx: RequestContext, filters?: string[]): Promise<Container[]>;
  create(ctx: RequestContext, container: ContainerInput): Promise<Container>;
  update(ctx: RequestContext, container: ContainerInput, paths: string[]): Promise<Container>;
  delete(ctx: RequestContext, id: string): Promise<void>;
}
