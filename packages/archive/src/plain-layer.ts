/** The tar inside a layer blob: what stream processors make of it, unpacked. Runs in a worker. */
import { resourceExhausted } from '@gantry/api';
import type { Compression } from './compression.ts';
import { type Unpacked, unpack } from './decompress.ts';
import { type ProcessorStep, runProcessor } from './stream-processor.ts';

export interface LayerEncoding {
  /** Programs to send the blob through first, in order. */
  processors?: ProcessorStep[];
  /** How what comes then is packed. Default: told by the first bytes. */
  compression?: Compression;
}

/** @throws StatusError ResourceExhausted if a layer has more bytes than it may */
export function checkLayerSize(size: number, most: number | undefined): void {
  if (most !== undefined && size > most) throw resourceExhausted(`layer is larger than ${most} bytes uncompressed`);
}

/** The plain bytes of a layer. Whoever stops reading them early ends the processors. */
export async function plainLayer(
  source: AsyncIterable<Buffer>,
  encoding: LayerEncoding,
  signal: AbortSignal,
): Promise<Unpacked> {
  let bytes = source;
  for (const step of encoding.processors ?? []) bytes = runProcessor(step, bytes, signal);
  return await unpack(bytes, encoding.compression);
}
