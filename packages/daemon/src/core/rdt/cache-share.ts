import { invalidArgument } from '@gantry/api';

/** A share of a cache: bits of a mask, or percent of it, from `low` (0 for none given) to `high`. */
export type CacheShare = { mask: bigint } | { low: number; high: number; range: boolean };

/**
 * @param text `60%`, `10-60%`, `0xf0`, or numbers of bits: `0-3`, `2,3`
 * @throws InvalidArgument for anything else, and for bits that are not one block of at least `minBits`
 */
export function parseCacheShare(text: string, minBits: number): CacheShare {
  const [, first = '', last] = /^(\d{1,3})(?:-(\d{1,3}))?%$/.exec(text) ?? [];
  if (first !== '') {
    const range = last !== undefined;
    const [low, high] = range ? [Number(first), Number(last)] : [0, Number(first)];
    if (high > 100 || low > high) {
      throw invalidArgument(`invalid percentage ${range ? 'range' : 'value'} "${text}"`);
    }
    return { low, high, range };
  }
  const mask = /^0x[0-9a-f]{1,16}$/i.test(text) ? BigInt(text) : bitsOf(numberList(text), text);
  const block = blockOf(mask);
  if (mask !== 0n && !block)
    throw invalidArgument(`invalid cache bitmask "${text}": more than one continuous block of ones`);
  if ((block?.width ?? 0) < minBits) {
    throw invalidArgument(`invalid cache bitmask "${text}": number of bits less than ${minBits}`);
  }
  return { mask };
}

/** Numbers from 0 to 127 as in `0,2,4-7`, in order. @throws InvalidArgument */
export function numberList(text: string): number[] {
  if (text === '') return [];
  const numbers = text.split(',').flatMap((part) => {
    const [, first, last] = /^(\d{1,3})(?:-(\d{1,3}))?$/.exec(part) ?? [];
    if (first === undefined || Number(last ?? first) > 127)
      throw invalidArgument(`invalid integer "${part}" in "${text}"`);
    if (last === undefined) return [Number(first)];
    if (Number(last) <= Number(first)) throw invalidArgument(`invalid integer range "${part}" in "${text}"`);
    return Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) => Number(first) + index);
  });
  return numbers.sort((one, other) => one - other);
}

function bitsOf(numbers: number[], text: string): bigint {
  if (numbers.some((number) => number > 63))
    throw invalidArgument(`invalid cache bitmask "${text}": no mask has a bit 64`);
  return numbers.reduce((mask, number) => mask | (1n << BigInt(number)), 0n);
}

/** Where the one block of ones of a mask is; undefined if it has none, or several. */
export function blockOf(mask: bigint): { first: number; width: number } | undefined {
  const [, ones, zeros] = /^(1+)(0*)$/.exec(mask.toString(2)) ?? [];
  return ones === undefined ? undefined : { first: zeros?.length ?? 0, width: ones.length };
}

/** `width` ones from bit `first`. */
export function block(first: number, width: number): bigint {
  return ((1n << BigInt(width)) - 1n) << BigInt(first);
}

/** A share of what `base` has. @throws InvalidArgument where it does not fit in there */
export function shareOf(base: bigint, share: CacheShare, minBits: number): bigint {
  const hex = (mask: bigint): string => `0x${mask.toString(16)}`;
  const all = blockOf(base);
  if (base === 0n) throw invalidArgument('empty basemask not allowed');
  if (!all) throw invalidArgument(`invalid basemask ${hex(base)}: more than one block of bits set`);
  if (all.width < minBits) throw invalidArgument(`invalid basemask ${hex(base)}: fewer than ${minBits} bits set`);
  if ('mask' in share) {
    const moved = share.mask << BigInt(all.first);
    if ((moved | base) === base) return moved;
    throw invalidArgument(
      `bitmask ${hex(moved)} (${hex(share.mask)} << ${all.first}) does not fit basemask ${hex(base)}`,
    );
  }
  const low = share.low || 1;
  if (low > share.high) throw invalidArgument(`invalid percentage range ${low}-${share.high}%`);
  let first = Math.floor(((low - 1) * all.width) / 100);
  let last = Math.floor(((share.high - 1) * all.width) / 100);
  // What is too narrow grows downwards, then upwards.
  first = Math.max(0, Math.min(first, last + 1 - minBits));
  last = Math.max(last, first + minBits - 1);
  return block(all.first + first, last - first + 1);
}
