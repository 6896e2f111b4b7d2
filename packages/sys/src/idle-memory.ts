/** Gives memory back when a process rests: V8 and malloc keep what they once needed, and a daemon rests most of its life. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { native } from './libc.ts';

const mallopt = native('mallopt', ['int', 'int']);
const mallocTrim = native('malloc_trim', ['size_t']);
const ARENA_MAX = -8;
const MMAP_THRESHOLD = -3;

export interface IdleMemoryOptions {
  /** How often it is looked at, and for how long a process must have rested. Milliseconds. */
  everyMs?: number;
  /** How much work of the main thread makes garbage worth a collection. Milliseconds. */
  workMs?: number;
}

/**
 * From now on: whenever the event loop has rested after some work, all garbage is collected and free memory goes back to the kernel.
 * That takes some ten milliseconds, at a time when nobody waits. Does not keep the process alive. Returns how to stop.
 */
export function returnMemoryWhenIdle(options: IdleMemoryOptions = {}): () => void {
  const { everyMs = 1000, workMs = 200 } = options;
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as (options: { type: 'major'; flavor: 'last-resort' }) => void;
  let before = performance.eventLoopUtilization();
  // What the start has left behind counts as work.
  let worked = workMs;
  const timer = setInterval(() => {
    const { active } = performance.eventLoopUtilization(before);
    before = performance.eventLoopUtilization();
    worked += active;
    if (worked < workMs || active > everyMs / 50 || awaited > 0) return;
    collect({ type: 'major', flavor: 'last-resort' });
    trimHeap();
    worked = 0;
    before = performance.eventLoopUtilization();
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}

let awaited = 0;

/** Told of work that this thread waits for while others do it: then it does not rest, however little it does itself. Answers how to tell its end. */
export function awaitedWork(): () => void {
  awaited++;
  let ended = false;
  return () => {
    if (!ended) awaited--;
    ended = true;
  };
}

/**
 * Has all threads share the C library's one heap, instead of one for each of them that keeps what it once needed, and large buffers be
 * mappings of their own, gone when they are freed. To be called first thing, before there are threads.
 */
export function keepHeapSmall(): void {
  onGlibc(() => {
    mallopt(ARENA_MAX, 1);
    mallopt(MMAP_THRESHOLD, 256 << 10);
  });
}

function trimHeap(): void {
  onGlibc(() => mallocTrim(0));
}

// Other C libraries have neither call, and keep less.
function onGlibc(call: () => void): void {
  try {
    call();
  } catch {
    // No such function here.
  }
}
