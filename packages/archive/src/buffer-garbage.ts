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
