import type { Mount } from '@gantry/mount';

interface WireMount {
  type: string;
  source: string;
  target: string;
  options: string[];
}

/** Mounts as an answer has them. */
export function fromWireMounts(mounts: readonly WireMount[]): Mount[] {
  return mounts.map(({ type, source, target, options }) => ({ type, source, target, options: [...options] }));
}

/** Mounts for a request. */
export function toWireMounts(mounts: readonly Mount[]): WireMount[] {
  return mounts.map(({ type, source, target = '', options }) => ({ type, source, target, options: [...options] }));
}
