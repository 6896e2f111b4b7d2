import { Session } from 'node:inspector/promises';
import type { InspectedWorker } from './worker-inspector.ts';

const answerMs = 1000;

/**
 * Connects a worker to the main thread through the inspector inside the process, for the length of `work`. What is asked interrupts JavaScript that does
 * not come to an end; only a thread that waits in a system call does not answer.
 */
export async function withMainThread<Result>(work: (thread: InspectedWorker) => Promise<Result>): Promise<Result> {
  const session = new Session();
  session.connectToMainThread();
  // A session alone does not keep its thread alive until it is answered.
  const alive = setInterval(() => undefined, 60_000);
  try {
    return await work({
      id: 0,
      title: 'main thread',
      call: (method, params = {}, timeoutMs = answerMs) => {
        const post = session.post.bind(session) as (method: string, params: object) => Promise<unknown>;
        return within(post(method, params), timeoutMs);
      },
      on: (method, listener) => {
        session.on(method, ({ params }: { params: unknown }) => listener(params));
      },
    });
  } finally {
    clearInterval(alive);
    session.disconnect();
  }
}

function within<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
