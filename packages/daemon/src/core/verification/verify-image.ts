import { failedPrecondition, StatusError } from '@gantry/api';
import type { Descriptor } from '@gantry/oci';
import type { Logger } from '../log/logger.ts';
import type { RequestContext } from '../request-context.ts';
import type { ImageSource, ImageVerifier, Judgement } from './image-verifier.ts';

/**
 * Asks every verifier about an image that is about to be pulled.
 * @throws FailedPrecondition `image verifier … blocked pull of …`, or what kept a verifier from judging
 */
export async function verifyPull(
  ctx: RequestContext,
  verifiers: ReadonlyMap<string, ImageVerifier>,
  image: { name: string; descriptor: Descriptor; source?: ImageSource },
  log: Logger,
): Promise<void> {
  const { name, descriptor, source } = image;
  const { digest } = descriptor;
  for (const [id, verifier] of verifiers) {
    const what = `pull of ${name} with digest ${digest}`;
    const fields = { name, digest, verifier: id };
    log.debug('Verifying image pull', fields);
    let judgement: Judgement;
    try {
      judgement = await verifier.verifyImage(ctx, name, descriptor, source);
    } catch (error) {
      log.error('No judgement received from verifier', { ...fields, error });
      throw StatusError.wrap(error, `blocking ${what}: image verifier ${id} returned error`);
    }
    const { ok, reason } = judgement;
    if (!ok) {
      log.warn('Image verifier blocked pull', { ...fields, ok, reason });
      throw failedPrecondition(`image verifier ${id} blocked ${what} for reason: ${reason}`);
    }
    log.debug('Image verifier allowed pull', { ...fields, ok, reason });
  }
}
