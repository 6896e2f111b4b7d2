/** How a command ended, as Kubernetes' clients are told it on the error stream (metav1.Status). */
export type CommandStatus = { exitCode: number } | { error: string };

/** From version 4 of the protocol on: JSON. */
export function statusJson(status: CommandStatus): string {
  if ('error' in status) {
    const message = `Internal error occurred: ${status.error}`;
    return JSON.stringify({
      status: 'Failure',
      message,
      reason: 'InternalError',
      details: { causes: [{ message: status.error }] },
      code: 500,
    });
  }
  if (status.exitCode === 0) return JSON.stringify({ status: 'Success' });
  return JSON.stringify({
    status: 'Failure',
    message: statusText(status),
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(status.exitCode) }] },
  });
}

/** Before version 4: a text, nothing when all went well. */
export function statusText(status: CommandStatus): string {
  if ('error' in status) return status.error;
  return status.exitCode === 0
    ? ''
    : `command terminated with non-zero exit code: error executing command: exit code ${status.exitCode}`;
}
