import type { Descriptor } from '@gantry/oci';
import type { RequestContext } from '../request-context.ts';

/** What a verifier thinks of an image. */
export interface Judgement {
  ok: boolean;
  /** For people: what decided. */
  reason: string;
}

/** The registry that the image comes from, reached with the hosts and credentials of the pull itself. */
export interface ImageSource {
  /** @throws NotFound if there is no such reference */
  resolve(reference: string, signal?: AbortSignal): Promise<{ descriptor: Descriptor }>;
  /** The bytes of a blob or manifest; whoever reads them checks the digest. */
  fetch(reference: string, descriptor: Descriptor, options?: { signal?: AbortSignal }): AsyncIterable<Uint8Array>;
  /** Manifests that name the descriptor as their subject, of one artifact type. Empty if there are none. */
  referrers(
    reference: string,
    descriptor: Descriptor,
    options?: { artifactType?: string; signal?: AbortSignal },
  ): Promise<Descriptor[]>;
}

/** Judges an image before it is pulled. */
export interface ImageVerifier {
  /**
   * @param name the reference as the client gave it
   * @param descriptor what it resolved to: the digest that is going to be pulled
   * @param source absent where the image does not come from a registry
   * @throws StatusError if no judgement could be had, which blocks the image as well
   */
  verifyImage(ctx: RequestContext, name: string, descriptor: Descriptor, source?: ImageSource): Promise<Judgement>;
}
