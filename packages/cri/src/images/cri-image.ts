import type { ImageConfig } from '@gantry/oci';
import type { ImageFacts } from './image-facts.ts';

/** An image as CRI sees it: one for each id, whatever names it has. */
export interface CriImage extends ImageFacts {
  /** Names of its records with a tag. */
  tags: string[];
  /** Names with a digest. */
  digests: string[];
  pinned: boolean;
  /** When the first of its records was made, nanoseconds since 1970. */
  createdAt: bigint;
}

/** Who its processes run as: a number, or a name. */
export function imageUser(config: ImageConfig): { uid?: bigint; username: string } {
  const user = (config.config?.User ?? '').split(':')[0] ?? '';
  if (/^\d+$/.test(user)) return { uid: BigInt(user), username: '' };
  return { username: user };
}
