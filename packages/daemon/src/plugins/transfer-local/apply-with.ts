import { Code, hasCode, unimplemented } from '@gantry/api';
import type { Mount } from '@gantry/mount';
import type { Descriptor } from '@gantry/oci';
import type { ApplyOptions, Differ, GrowingBlob } from '../../core/diff/differ.ts';
import type { RequestContext } from '../../core/request-context.ts';

/** Has the first differ that knows the layer's type unpack it; along with a blob that still grows, if it can. */
export async function applyWith(
  differs: readonly Differ[],
  ctx: RequestContext,
  layer: Descriptor,
  mounts: Mount[],
  options: ApplyOptions = {},
  blob?: GrowingBlob,
): Promise<Descriptor> {
  let last: unknown = unimplemented('no differ is loaded');
  for (const differ of differs) {
    try {
      if (blob && differ.applyGrowing) return await differ.applyGrowing(ctx, layer, blob, mounts, options);
      await blob?.complete;
      return await differ.apply(ctx, layer, mounts, options);
    } catch (error) {
      if (!hasCode(error, Code.Unimplemented)) throw error;
      last = error;
    }
  }
  throw last;
}
