/** The server's log: one line an event on stderr, which `start` made the group's log file. */
export type LogFields = Record<string, unknown>;

let debugging = false;

/** Whether `debug` lines are written (-debug). */
export function setDebug(on: boolean): void {
  debugging = on;
}

function write(level: string, message: string, fields: LogFields = {}): void {
  const parts = Object.entries(fields).map(([name, value]) => `${name}=${JSON.stringify(textOf(value))}`);
  process.stderr.write(
    `time="${new Date().toISOString()}" level=${level} msg=${JSON.stringify(message)} ${parts.join(' ')}`.trimEnd() +
      '\n',
  );
}

function textOf(value: unknown): unknown {
  if (value instanceof Error) return value.stack ?? value.message;
  return typeof value === 'bigint' ? String(value) : value;
}

export const log = {
  debug(message: string, fields?: LogFields): void {
    if (debugging) write('debug', message, fields);
  },
  info: (message: string, fields?: LogFields): void => write('info', message, fields),
  warn: (message: string, fields?: LogFields): void => write('warning', message, fields),
  error: (message: string, fields?: LogFields): void => write('error', message, fields),
};
