import type { Any } from '@bufbuild/protobuf/wkt';
import { Code } from './code.ts';

/**
 * The one error type of Gantry: a gRPC code, a message that a user can search for, and what caused it.
 * Every core object throws these; the RPC layer puts code, message and details on the wire as they are.
 */
export class StatusError extends Error {
  readonly code: Code;
  readonly details: readonly Any[];

  constructor(code: Code, message: string, options: { cause?: unknown; details?: readonly Any[] } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'StatusError';
    this.code = code;
    this.details = options.details ?? [];
  }

  /** Any thrown value as a StatusError: itself, or code Unknown (AbortError: Canceled, a full disk: ResourceExhausted) around it. */
  static from(reason: unknown): StatusError {
    if (reason instanceof StatusError) return reason;
    // What went wrong first is what the caller asks about; that the clean-up failed too stays in the cause.
    if (reason instanceof SuppressedError) return StatusError.from(reason.suppressed);
    if (reason instanceof Error) {
      const code =
        reason.name === 'AbortError'
          ? Code.Canceled
          : reason.name === 'TimeoutError'
            ? Code.DeadlineExceeded
            : outOfSpace.has((reason as NodeJS.ErrnoException).code)
              ? Code.ResourceExhausted
              : Code.Unknown;
      return new StatusError(code, reason.message, { cause: reason });
    }
    return new StatusError(Code.Unknown, String(reason), { cause: reason });
  }

  /** The same code and details under a longer message, as `prefix: message`. */
  static wrap(reason: unknown, prefix: string): StatusError {
    const error = StatusError.from(reason);
    return new StatusError(error.code, `${prefix}: ${error.message}`, { cause: reason, details: error.details });
  }
}

const outOfSpace = new Set<unknown>(['ENOSPC', 'EDQUOT']);

const maker =
  (code: Code) =>
  (message: string, cause?: unknown): StatusError =>
    new StatusError(code, message, { cause });

export const canceled = maker(Code.Canceled);
export const unknown = maker(Code.Unknown);
export const invalidArgument = maker(Code.InvalidArgument);
export const deadlineExceeded = maker(Code.DeadlineExceeded);
export const notFound = maker(Code.NotFound);
export const alreadyExists = maker(Code.AlreadyExists);
export const permissionDenied = maker(Code.PermissionDenied);
export const resourceExhausted = maker(Code.ResourceExhausted);
export const failedPrecondition = maker(Code.FailedPrecondition);
export const aborted = maker(Code.Aborted);
export const outOfRange = maker(Code.OutOfRange);
export const unimplemented = maker(Code.Unimplemented);
export const internal = maker(Code.Internal);
export const unavailable = maker(Code.Unavailable);

/** Whether a thrown value is a StatusError of that code. */
export function hasCode(reason: unknown, code: Code): reason is StatusError {
  return reason instanceof StatusError && reason.code === code;
}
