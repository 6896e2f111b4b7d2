/** How much went from containers to their logs: counted by the thread that copies, read by the main one. */
export interface LogCounts {
  inputEntries: bigint;
  inputBytes: bigint;
  outputEntries: bigint;
  outputBytes: bigint;
  /** Entries more than there were, as long lines are told in parts. */
  splitEntries: bigint;
}

const names = ['inputEntries', 'inputBytes', 'outputEntries', 'outputBytes', 'splitEntries'] as const;

/** Memory that threads share. */
export function newLogCounts(): BigInt64Array<SharedArrayBuffer> {
  return new BigInt64Array(new SharedArrayBuffer(names.length * 8));
}

/** One piece of output, as it is in the log: `lines` that ended, `parts` of others. */
export function countPiece(
  counts: BigInt64Array,
  piece: { lines: number; parts: number; consumed: number; length: number },
): void {
  const added = [piece.lines, piece.consumed, piece.lines + piece.parts, piece.length, piece.parts];
  for (const [index, amount] of added.entries()) Atomics.add(counts, index, BigInt(amount));
}

export function readLogCounts(counts: BigInt64Array): LogCounts {
  return Object.fromEntries(names.map((name, index) => [name, Atomics.load(counts, index)])) as unknown as LogCounts;
}
