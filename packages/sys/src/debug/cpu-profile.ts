import { type Profiler, Session } from 'node:inspector/promises';
import { type InspectedWorker, withWorkers } from './worker-inspector.ts';

/** Anything that has a method of the inspector's protocol called: this thread or a worker. */
type Call = (method: string, params?: object, timeoutMs?: number) => Promise<unknown>;

/** A worker may be in a long step when it is told to stop. */
const stopMs = 30_000;

/**
 * Where a thread's time goes, as a V8 profile (`.cpuprofile`).
 * @param seconds for how long; an abort ends it early
 * @param thread a worker's number; the main thread is 0
 * @returns undefined if there is no such thread
 */
export async function cpuProfile(
  seconds: number,
  thread: number,
  signal: AbortSignal,
): Promise<Profiler.Profile | undefined> {
  if (thread !== 0) {
    return withWorkers(async (workers) => {
      const worker: InspectedWorker | undefined = workers.find(({ id }) => id === thread);
      return worker && record((...call) => worker.call(...call), seconds, signal);
    });
  }
  const session = new Session();
  session.connect();
  try {
    const post = session.post.bind(session) as (method: string, params?: object) => Promise<unknown>;
    return await record((method, params) => post(method, params), seconds, signal);
  } finally {
    session.disconnect();
  }
}

/** Profiles whatever answers these calls. */
export async function record(call: Call, seconds: number, signal: AbortSignal): Promise<Profiler.Profile> {
  await call('Profiler.enable');
  await call('Profiler.start');
  await waited(seconds, signal);
  const { profile } = (await call('Profiler.stop', {}, stopMs)) as { profile: Profiler.Profile };
  return profile;
}

/** Resolves after a time, or at once when the signal tells that nobody waits any more. */
export function waited(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, seconds * 1000);
    signal.addEventListener('abort', done);
    return undefined;
  });
}
