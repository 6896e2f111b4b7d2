import { Code, canceled, deadlineExceeded, StatusError } from '@gantry/api';

/** The error of a call that its own caller gave up. */
export function abortError(signal: AbortSignal): StatusError {
  const reason: unknown = signal.reason;
  if (reason instanceof StatusError) return reason;
  const error = StatusError.from(reason);
  return error.code === Code.DeadlineExceeded
    ? deadlineExceeded('context deadline exceeded', reason)
    : canceled('context canceled', reason);
}
