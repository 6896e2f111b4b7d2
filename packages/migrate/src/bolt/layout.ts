// The numbers of bbolt's file format, version 2, as its documentation and its files show them. All are little-endian here: bbolt
// writes the machine's own order, and a file from the other kind of machine is refused by its magic number.

export const magic = 0xed0cdaed;
export const formatVersion = 2;

/** A page begins with its number (u64), flags (u16), count of elements (u16), and how many pages it runs on (u32). */
export const pageHeaderSize = 16;
/** Both kinds of element have 16 bytes. Branch: position, key size, page. Leaf: flags, position, key size, value size. */
export const elementSize = 16;
/** A bucket's value: root page (u64, 0 for a page that follows inline) and sequence (u64). */
export const bucketHeaderSize = 16;

export const branchPage = 0x01;
export const leafPage = 0x02;
export const metaPage = 0x04;

/** A leaf element whose value is a bucket. */
export const bucketElement = 0x01;

export const smallestPageSize = 1024;
export const largestPageSize = 65536;

const fnvOffset = 0xcbf29ce484222325n;
const fnvPrime = 0x100000001b3n;

/** FNV-1a with 64 bits, which a meta page carries over its fields. */
export function fnv1a(bytes: Uint8Array): bigint {
  let hash = fnvOffset;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * fnvPrime);
  return hash;
}
