import type { RequestContext } from '../../core/request-context.ts';
import type { ImageStoreEndpoint } from './endpoints.ts';
import { type TransferEnvironment, withLease } from './environment.ts';
import { storeImages } from './store-images.ts';

/** Tag: gives an image of the store another name. */
export async function tag(
  ctx: RequestContext,
  env: TransferEnvironment,
  source: ImageStoreEndpoint,
  destination: ImageStoreEndpoint,
): Promise<void> {
  await withLease(ctx, env.leases, async (leased) => {
    const { target } = await env.images.get(leased, source.name);
    await storeImages(leased, env.images, destination, target);
  });
}
