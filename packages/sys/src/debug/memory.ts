import { readFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { getHeapSpaceStatistics, getHeapStatistics } from 'node:v8';
import { withWorkers } from './worker-inspector.ts';

/** Memory by kind. All in bytes. */
export interface MemoryReport {
  /** As Node counts: `rss` is all of the process, `heapUsed` the main thread's objects, `external` and `arrayBuffers` buffers. */
  process: NodeJS.MemoryUsage;
  heap: Record<string, number>;
  /** Used bytes of each of V8's spaces. */
  spaces: Record<string, number>;
  /** The heaps of worker threads; an error where one does not answer. */
  workers: { thread: number; title: string; heap?: object; error?: string }[];
  /** What the kernel counts of all mappings: Rss, Pss, Private_Dirty, Swap and so on. */
  kernel: Record<string, number>;
}

/** @param collected after a collection: then `heapUsed` is what is in use, and no garbage */
export async function memoryReport(collected = false): Promise<MemoryReport> {
  if (collected) await collectGarbage();
  const workers = await withWorkers((found) =>
    Promise.all(
      found.map(async (worker) => {
        const named = { thread: worker.id, title: worker.title };
        try {
          return { ...named, heap: (await worker.call('Runtime.getHeapUsage')) as object };
        } catch (error) {
          return { ...named, error: (error as Error).message };
        }
      }),
    ),
  );
  return {
    process: process.memoryUsage(),
    heap: { ...getHeapStatistics() },
    spaces: Object.fromEntries(getHeapSpaceStatistics().map((space) => [space.space_name, space.space_used_size])),
    workers,
    kernel: kernelMemory(),
  };
}

/** As DevTools do: Node has it for those only who start it with a flag. */
async function collectGarbage(): Promise<void> {
  const session = new Session();
  session.connect();
  try {
    await session.post('HeapProfiler.collectGarbage');
  } finally {
    session.disconnect();
  }
}

function kernelMemory(): Record<string, number> {
  let text = '';
  try {
    text = readFileSync('/proc/self/smaps_rollup', 'utf8');
  } catch {
    // Not every kernel is built with it.
  }
  const found = [...text.matchAll(/^(\w+):\s+(\d+) kB$/gm)];
  return Object.fromEntries(found.map(([, name, kilobytes]) => [name!, Number(kilobytes) * 1024]));
}
