import { readFileSync } from 'node:fs';
import { invalidArgument } from '@gantry/api';
import type { Mount } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { linuxOf, type RuntimeSpec } from '@gantry/oci';
import { inOrderOfDepth } from '@gantry/oci/spec/mount-order.ts';
import { isRemoval, withoutMark } from './removal-marks.ts';

/** Adds mounts in place of those at the same destinations, and removes those that are marked. @throws InvalidArgument for propagation that the source has not */
export function applyMounts(spec: RuntimeSpec, asked: readonly Mount[]): void {
  let mounts = spec.mounts ?? [];
  for (const { destination, type, source, options } of asked) {
    const place = withoutMark(destination);
    mounts = mounts.filter((present) => present.destination !== place);
    if (isRemoval(destination)) continue;
    const propagation = options.findLast((option) => ['rprivate', 'rshared', 'rslave'].includes(option));
    if (propagation === 'rshared' || propagation === 'rslave') propagate(spec, source, propagation);
    mounts.push({
      destination: place,
      ...(type !== '' && { type }),
      ...(source !== '' && { source }),
      ...(options.length > 0 && { options: [...options] }),
    });
  }
  // Those of one depth by name: the order that plugins' authors find under containerd.
  spec.mounts = inOrderOfDepth(mounts.toSorted((one, other) => compare(one.destination, other.destination)));
}

const compare = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);

/** What is to come through has to be shared on the host, and the container's root must let it. */
function propagate(spec: RuntimeSpec, source: string, propagation: 'rshared' | 'rslave'): void {
  const of = propagationOf(source);
  if (of !== 'shared' && !(propagation === 'rslave' && of === 'slave')) {
    throw invalidArgument(
      `path "${source}" is mounted on no shared${propagation === 'rslave' ? ' or slave' : ''} mount`,
    );
  }
  const linux = linuxOf(spec);
  if (propagation === 'rshared' || linux.rootfsPropagation !== 'rshared') linux.rootfsPropagation = propagation;
}

/** Of the mount that a path lies on. */
function propagationOf(source: string): 'shared' | 'slave' | 'private' {
  let best = '';
  let found: 'shared' | 'slave' | 'private' = 'private';
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')) {
    const [fields = ''] = line.split(' - ', 1);
    const [, , , , point = '', , ...tags] = fields.split(' ');
    const inside = point === '/' || source === point || source.startsWith(`${point}/`);
    if (!inside || point.length < best.length) continue;
    best = point;
    found = tags.some((tag) => tag.startsWith('shared:'))
      ? 'shared'
      : tags.some((tag) => tag.startsWith('master:'))
        ? 'slave'
        : 'private';
  }
  return found;
}
