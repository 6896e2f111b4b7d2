import path from 'node:path';
import type { SpecMount } from './runtime-spec.ts';

/** A mount must come after those that it lies in; others keep their order. */
export function inOrderOfDepth(mounts: readonly SpecMount[]): SpecMount[] {
  const depth = ({ destination }: SpecMount): number =>
    path
      .normalize(destination)
      .replace(/(?<=.)\/$/, '')
      .split('/').length;
  return mounts.toSorted((one, other) => depth(one) - depth(other));
}
