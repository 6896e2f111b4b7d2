// The code of HPACK's strings (RFC 7541, appendix B). It is canonical, so the lengths say it all.

/** Bits of each byte's code, and of the end's, in base 36. */
const lengths =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f5656566657766' +
  '6567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqq' +
  'srrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu';

const end = 256;
/** Pairs of branches: another pair's index, a byte as `-1 - byte`, or 0 for none. */
const tree = new Int16Array(2 * 256);

function plant(): void {
  let code = 0;
  let nodes = 1;
  for (let length = 1; length <= 30; length++) {
    for (let symbol = 0; symbol <= end; symbol++) {
      if (Number.parseInt(lengths[symbol]!, 36) !== length) continue;
      let node = 0;
      for (let bit = length - 1; bit > 0; bit--) {
        const branch = 2 * node + ((code >>> bit) & 1);
        if (tree[branch] === 0) tree[branch] = nodes++;
        node = tree[branch]!;
      }
      tree[2 * node + (code & 1)] = -1 - symbol;
      code++;
    }
    code *= 2;
  }
}
plant();

/** The bytes of `from` up to `to`, decoded; undefined if they are none of this code. */
export function decodeHuffman(from: Uint8Array, start: number, stop: number): string | undefined {
  let text = '';
  let node = 0;
  let depth = 0;
  let ones = true;
  for (let at = start; at < stop; at++) {
    const byte = from[at]!;
    for (let bit = 7; bit >= 0; bit--) {
      const one = (byte >>> bit) & 1;
      if (one === 0) ones = false;
      const next = tree[2 * node + one]!;
      if (next >= 0) {
        node = next;
        depth++;
        continue;
      }
      if (next === -1 - end) return undefined;
      text += String.fromCharCode(-1 - next);
      node = 0;
      depth = 0;
      ones = true;
    }
  }
  // What fills the last byte up is the beginning of the end's code: ones, fewer than eight.
  return ones && depth < 8 ? text : undefined;
}
