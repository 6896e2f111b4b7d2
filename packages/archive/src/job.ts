/**
 * The protocol between the main thread and archive workers, and what a job sees of it. A job is an async function of
 * structured-clone parameters; several may share a worker, taking turns at each await.
 */
import { type Code, StatusError } from '@gantry/api';

/** From main to worker. */
export type ToWorker =
  | { kind: 'start'; id: number; job: string; params: unknown }
  | { kind: 'message'; id: number; message: unknown }
  | { kind: 'cancel'; id: number };

/** From worker to main. */
export type FromWorker =
  | { kind: 'progress'; id: number; progress: unknown }
  | { kind: 'result'; id: number; result: unknown }
  | { kind: 'error'; id: number; error: JobFailure };

/** An error that crossed the thread: message, name and code survive; a StatusError stays one. */
export interface JobFailure {
  name: string;
  status?: Code | undefined;
  message: string;
  code?: string | undefined;
  stack?: string | undefined;
}

/** What a running job is given besides its parameters. */
export interface JobContext {
  readonly signal: AbortSignal;
  progress(progress: unknown): void;
  /** The next message posted to the job by its owner. Rejects when cancelled. */
  nextMessage(): Promise<unknown>;
}

export type JobFunction = (params: never, context: JobContext) => Promise<unknown>;

/** Thrown in the main thread when a job failed in its worker. */
export class JobError extends Error {
  /** Code of the worker's error: an errno name, a zlib code, `ETAR`. */
  readonly code: string | undefined;

  constructor(failure: JobFailure) {
    super(failure.message);
    this.name = failure.name;
    this.code = failure.code;
    if (failure.stack) this.stack = failure.stack;
  }
}

/** The error of a job, in the main thread again. */
export function fromFailure(failure: JobFailure): Error {
  return failure.status === undefined ? new JobError(failure) : new StatusError(failure.status, failure.message);
}

export function toFailure(error: unknown): JobFailure {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const code = (error as { code?: unknown }).code;
  return {
    ...(error instanceof StatusError && { status: error.code }),
    name: error.name,
    message: error.message,
    stack: error.stack,
    ...(typeof code === 'string' && { code }),
  };
}
