/** Gathers small pieces into larger ones: fewer messages to the daemon, each of which waits for an answer. */
export async function* inBatches(source: AsyncIterable<Uint8Array>, size = 1 << 20): AsyncGenerator<Uint8Array> {
  let batch: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of source) {
    batch.push(piece);
    bytes += piece.byteLength;
    if (bytes < size) continue;
    yield batch.length === 1 ? batch[0]! : Buffer.concat(batch);
    batch = [];
    bytes = 0;
  }
  if (bytes > 0) yield Buffer.concat(batch);
}
