import { logLine, now, tracing } from '@gantry/api';

/** The server's log: one line an event on stderr, which `start` made the group's log file. */
export type LogFields = Record<string, unknown>;

let debugging = false;
let further: ((line: string) => void) | undefined;
/** As the daemon's own log, if it is one of ours that tells. */
export const logFormat = process.env['GANTRY_LOG_FORMAT'] === 'json' ? 'json' : 'text';
const withIds = logFormat === 'json' || process.env['GANTRY_LOG_TRACE_ID'] === '1';

/** Whether `debug` lines are written (-debug). */
export function setDebug(on: boolean): void {
  debugging = on;
}

/** Has each line go elsewhere too. */
export function alsoLogTo(write: (line: string) => void): void {
  further = write;
}

function write(level: string, message: string, given: LogFields = {}): void {
  const fields = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, withStack(value)]));
  const ids = withIds ? tracing()?.ids() : undefined;
  if (ids) Object.assign(fields, { trace_id: ids.traceId, span_id: ids.spanId });
  const line = logLine(logFormat, { level, message, fields, time: now() });
  process.stderr.write(line);
  further?.(line);
}

/** What fails here fails far from whoever could ask: the stack is told too. */
function withStack(value: unknown): unknown {
  return value instanceof Error ? (value.stack ?? value.message) : value;
}

export const log = {
  debug(message: string, fields?: LogFields): void {
    if (debugging) write('debug', message, fields);
  },
  info: (message: string, fields?: LogFields): void => write('info', message, fields),
  warn: (message: string, fields?: LogFields): void => write('warning', message, fields),
  error: (message: string, fields?: LogFields): void => write('error', message, fields),
};
