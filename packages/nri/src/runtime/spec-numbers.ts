/**
 * A whole number of 64 bits as documents have it. The type says number; what that cannot hold (RLIM_INFINITY) stays the bigint that the
 * codec of documents writes and reads in such places.
 */
export function specNumber(value: bigint): number {
  return (Number.isSafeInteger(Number(value)) ? Number(value) : value) as number;
}

/** The other way round. */
export const wireNumber = (value: number): bigint => BigInt(value);
