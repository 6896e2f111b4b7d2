import type { Time } from '@gantry/api';
import type { RequestContext } from '../request-context.ts';

export interface Lease {
  id: string;
  createdAt: Time;
  labels: Record<string, string>;
}

/** `type` is `content`, `ingests`, `images`, `snapshots/<snapshotter>` or `mounts`. */
export interface LeaseResource {
  id: string;
  type: string;
}

/** Leases hold resources against collection until deleted or, with `containerd.io/gc.expire`, past their time. */
export interface LeaseManager {
  create(ctx: RequestContext, lease: { id: string; labels: Record<string, string> }): Promise<Lease>;
  /** `keepIngests`: what is half written, and of a known digest, stays resumable for a day, rather than going at the next collection. */
  delete(ctx: RequestContext, id: string, options?: { synchronous?: boolean; keepIngests?: boolean }): Promise<void>;
  list(ctx: RequestContext, filters?: string[]): Promise<Lease[]>;
  addResource(ctx: RequestContext, lease: string, resource: LeaseResource): Promise<void>;
  deleteResource(ctx: RequestContext, lease: string, resource: LeaseResource): Promise<void>;
  listResources(ctx: RequestContext, lease: string): Promise<LeaseResource[]>;
}
