import { parentPort } from 'node:worker_threads';
import { Code, StatusError } from '@gantry/api';

/** What a worker is sent: one job by number. */
export interface JobRequest {
  id: number;
  op: string;
  args: unknown;
}

/** What it answers: a value, or an error taken apart, because class and code do not survive structured cloning. */
export type JobReply = { id: number; value: unknown } | { id: number; error: JobError };

export interface JobError {
  code: number;
  message: string;
  /** The errno's name, if a system call failed. */
  errno?: string | undefined;
}

/** Handlers by operation. A synchronous one has the thread to itself; asynchronous ones take turns. */
export type JobHandlers = Record<string, (args: never) => unknown>;

/** The worker's side: answers each job with its handler's value. Call once, at the top of the worker's file. */
export function serveJobs(handlers: JobHandlers): void {
  const port = parentPort;
  if (!port) throw new Error('serveJobs outside a worker');
  port.on('message', async (request: JobRequest) => {
    try {
      const handler = handlers[request.op];
      if (!handler) throw new StatusError(Code.Unimplemented, `no such job: ${request.op}`);
      const value = handler(request.args as never);
      port.postMessage({ id: request.id, value: value instanceof Promise ? await value : value } satisfies JobReply);
    } catch (reason) {
      const errno = (reason as NodeJS.ErrnoException).code;
      const error = StatusError.from(reason);
      port.postMessage({
        id: request.id,
        error: { code: error.code, message: error.message, errno: typeof errno === 'string' ? errno : undefined },
      } satisfies JobReply);
    }
  });
}
