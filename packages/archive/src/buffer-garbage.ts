import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Keeps streams of large buffers small in memory. A buffer is a tiny object to V8, with its bytes elsewhere, so hundreds of
 * megabytes of dead ones gather in each thread before it looks at them. Collecting the young ones after every few megabytes costs
 * about a millisecond and frees nearly all.
 */
type Collect = (options: { type: 'minor' }) => void;

let collect: Collect | undefined;

/** Answers a function that is told of bytes that went through buffers, and collects when they are `every` (default 16 MiB). */
export function bufferCollector(every = 16 << 20): (bytes: number) => void {
  if (!collect) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as Collect;
  }
  let passed = 0;
  return (bytes) => {
    passed += bytes;
    if (passed < every) return;
    passed = 0;
    collect?.({ type: 'minor' });
  };
}

/**
 * Frees the memory of a chunk that came from a socket and was copied, at once: to V8 it is a small object with its bytes elsewhere, and
 * hundreds of megabytes of such garbage would have it collect the whole heap again and again. Only where the chunk reaches to the end of
 * its memory: then no other part of it comes later. Nothing may have kept the chunk or an earlier one of the same memory.
 */
export function letGo(chunk: Uint8Array): void {
  const { buffer } = chunk;
  if (chunk.byteOffset + chunk.length !== buffer.byteLength || !(buffer instanceof ArrayBuffer)) return;
  try {
    buffer.transfer(0);
  } catch {
    // A piece of Node's own pool: that is never given away.
  }
}
