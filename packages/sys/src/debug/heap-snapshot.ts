import { randomUUID } from 'node:crypto';
import { closeSync, openSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { writeHeapSnapshot } from 'node:v8';
import { withWorkers } from './worker-inspector.ts';

const workerMs = 60_000;

/**
 * A snapshot of a thread's heap (`.heapsnapshot`) in a file without a name, so that it is gone with its descriptor. V8's own stream would hold
 * all of its text in memory. The thread does nothing else while it is written.
 * @param thread a worker's number; the main thread is 0
 * @returns the descriptor, which is the caller's to close; undefined if there is no such thread
 */
export async function heapSnapshot(thread: number): Promise<number | undefined> {
  const file = path.join(tmpdir(), `gantry-heap-${process.pid}-${randomUUID()}`);
  const fd = openSync(file, 'wx+', 0o600);
  let found = true;
  try {
    unlinkSync(file);
    if (thread === 0) writeHeapSnapshot(`/proc/self/fd/${fd}`);
    else found = await snapshotOfWorker(thread, `/proc/self/fd/${fd}`);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  if (found) return fd;
  closeSync(fd);
  return undefined;
}

function snapshotOfWorker(thread: number, file: string): Promise<boolean> {
  return withWorkers(async (workers) => {
    const worker = workers.find(({ id }) => id === thread);
    if (!worker) return false;
    const expression = `process.getBuiltinModule('node:v8').writeHeapSnapshot(${JSON.stringify(file)})`;
    const answer = (await worker.call('Runtime.evaluate', { expression }, workerMs)) as { exceptionDetails?: object };
    if (answer.exceptionDetails) throw new Error(`thread ${thread} cannot write its snapshot`);
    return true;
  });
}
