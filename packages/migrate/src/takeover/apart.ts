// Neither daemon's directories may lie in the other's: what is written here would be written there.
import { existsSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { failedPrecondition } from '@gantry/api';
import type { ContainerdPlace, GantryPlace } from '../places.ts';
import { takeable } from './take-snapshots.ts';

/** @throws StatusError FailedPrecondition that names the two that are not apart */
export function assertApart(
  from: Pick<ContainerdPlace, 'root' | 'state' | 'snapshotterRoots' | 'contentRoot'>,
  to: Pick<GantryPlace, 'root' | 'state' | 'contentRoot' | 'snapshotterRoot'>,
): void {
  const theirs = [from.root, from.state, from.contentRoot ?? from.root, ...from.snapshotterRoots.values()];
  const ours = [to.root, to.state, to.contentRoot, ...takeable.map((name) => to.snapshotterRoot(name))];
  for (const one of ours) {
    for (const other of theirs) {
      if (isWithin(real(one), real(other)) || isWithin(real(other), real(one)))
        throw failedPrecondition(`gantryd's ${one} and containerd's ${other} must lie apart: give gantryd others`);
    }
  }
}

function isWithin(inner: string, outer: string): boolean {
  const way = path.relative(outer, inner);
  return way === '' || (way !== '..' && !way.startsWith('../'));
}

/** With its links followed, as far as it is there. */
function real(place: string): string {
  if (existsSync(place)) return realpathSync(place);
  const above = path.dirname(place);
  return above === place ? place : path.join(real(above), path.basename(place));
}
