import type { Time } from '@gantry/api';
import type { Descriptor } from '@gantry/oci';
import type { RequestContext } from '../request-context.ts';

export interface Image {
  name: string;
  labels: Record<string, string>;
  target: Descriptor;
  createdAt: Time;
  updatedAt: Time;
}

/** Image records. Errors as containerd's: `image "x": not found`, `image "x": already exists`. */
export interface ImageStore {
  get(ctx: RequestContext, name: string): Promise<Image>;
  /** The same for those who expect that there may be none. */
  find?(ctx: RequestContext, name: string): Promise<Image | undefined>;
  /** Filters: `name`, `target.digest`, `target.mediatype`, `labels."x"`, `annotations."x"`. */
  list(ctx: RequestContext, filters?: string[]): Promise<Image[]>;
  create(ctx: RequestContext, image: Pick<Image, 'name' | 'labels' | 'target'> & { createdAt?: Time }): Promise<Image>;
  /** `paths`: `labels`, `labels.key`, `target`, `annotations`; empty replaces labels and target. */
  update(ctx: RequestContext, image: Pick<Image, 'name' | 'labels' | 'target'>, paths: string[]): Promise<Image>;
  /** With `synchronous` the answer comes after a garbage collection. `target`: delete only if it still has this digest. */
  delete(ctx: RequestContext, name: string, options?: { synchronous?: boolean; target?: string }): Promise<void>;
}
