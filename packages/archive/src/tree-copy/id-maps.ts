import { invalidArgument } from '@gantry/api';

/** One line of a uid_map: `size` ids from `inside` are those from `outside` on. */
export interface IdRange {
  inside: number;
  outside: number;
  size: number;
}

/** The ids of a user namespace; absent maps are identity. */
export interface IdMaps {
  uid?: IdRange[];
  gid?: IdRange[];
}

/** Who owns what the namespace does not know: `nobody`. */
const overflow = 65534;

/** An id of an archive as this process writes it. @throws StatusError InvalidArgument for one that the namespace does not have */
export function outsideId(map: readonly IdRange[] | undefined, id: number): number {
  if (!map) return id;
  const range = map.find(({ inside, size }) => id >= inside && id < inside + size);
  if (!range) throw invalidArgument(`id ${id} is not one of the container's user namespace`);
  return range.outside + (id - range.inside);
}

/** An id on disk as the namespace sees it. */
export function insideId(map: readonly IdRange[] | undefined, id: number): number {
  if (!map) return id;
  const range = map.find(({ outside, size }) => id >= outside && id < outside + size);
  return range ? range.inside + (id - range.outside) : overflow;
}

/** Reads a uid_map or gid_map of /proc. @returns undefined if every id is itself */
export function parseIdMap(text: string): IdRange[] | undefined {
  const ranges = text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [inside = 0, outside = 0, size = 0] = line.trim().split(/\s+/).map(Number);
      return { inside, outside, size };
    });
  const identity = ranges.length === 1 && ranges[0]!.inside === 0 && ranges[0]!.outside === 0;
  return identity && ranges[0]!.size >= 0xffffffff ? undefined : ranges;
}
