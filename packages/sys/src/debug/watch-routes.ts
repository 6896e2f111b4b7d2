// What the watching thread answers of a main thread that may not come back: the paths of debug-http.ts that can do without its help.
import { record } from './cpu-profile.ts';
import type { Route } from './debug-http.ts';
import { withMainThread } from './main-thread.ts';
import { formatThreads, nativeThreads } from './native-threads.ts';
import { stackOf } from './stacks.ts';

/** @param busyMs for how long the main thread has not answered; 0 if it does */
export function watchRoutes(busyMs: () => number): Record<string, Route> {
  return {
    '/debug/pprof/goroutine': {
      about: 'stack of the main thread, wherever it is, and all threads',
      alone: true,
      answer: async () => ({ text: `${await mainStack(busyMs())}\nthreads\n${formatThreads(nativeThreads())}` }),
    },
    '/debug/pprof/profile': {
      about: 'where the main thread’s time goes (.cpuprofile); seconds=N',
      seconds: 30,
      alone: true,
      answer: async ({ seconds, signal }) => {
        const profile = await withMainThread((thread) => record((...call) => thread.call(...call), seconds, signal));
        return { text: JSON.stringify(profile), isJson: true };
      },
    },
    '/debug/pprof/heap': {
      about: 'not from here: V8 writes it only between two steps of the main thread',
      answer: () => ({ refused: 'the main thread does not answer: its heap can be had when it does', status: 503 }),
    },
    '/debug/pprof/threadcreate': {
      about: 'all threads as the kernel sees them',
      answer: () => ({ text: formatThreads(nativeThreads()) }),
    },
  };
}

/** The main thread's stack as text, under a line that says how it fares. */
export async function mainStack(busyMs: number): Promise<string> {
  const how = busyMs > 0 ? `has not answered for ${(busyMs / 1000).toFixed(1)} s` : 'answers';
  const lines = await withMainThread(stackOf);
  return `main thread (pid ${process.pid}): ${how}\n${lines.join('\n')}\n`;
}
