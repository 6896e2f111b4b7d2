// The daemon's logger: levels, fields that stay, and where a line stands in a trace.
import { logLine, now, type SpanAttributes, type Time, tracing } from '@gantry/api';
import type { LogFields, Logger, LogLevel } from './logger.ts';

const order: readonly LogLevel[] = ['panic', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'];

/** The name of a level as it stands in a log line: logrus says `warning`. */
function levelName(level: LogLevel): string {
  return level === 'warn' ? 'warning' : level;
}

/** A level by the names containerd accepts. undefined: not a level. */
export function parseLogLevel(text: string): LogLevel | undefined {
  const name = text.toLowerCase();
  return name === 'warning' ? 'warn' : order.find((level) => level === name);
}

export interface LogOptions {
  /** The least severe level that is written. Default `info`. */
  level?: LogLevel;
  format?: 'text' | 'json';
  /** Gets whole lines with their line end. Default: the standard error stream. */
  write?: (line: string) => void;
  /** While calls are traced: `trace_id` and `span_id` on lines of text too. Those of JSON have them anyway. */
  traceIds?: boolean;
  /** The clock, for tests. */
  now?: () => Time;
}

/** Fields as a span's event can hold them. */
function attributesOf(fields: LogFields): SpanAttributes {
  const simple = (value: unknown) =>
    typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
      ? value
      : value instanceof Error
        ? value.message
        : String(value);
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, simple(value)]])),
  );
}

/** A logger that writes lines. Fields come sorted by name after time, level and message. */
export function createLogger(options: LogOptions = {}): Logger {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const clock = options.now ?? now;
  const least = order.indexOf(options.level ?? 'info');
  const format = options.format ?? 'text';
  const withIds = options.traceIds === true || format === 'json';

  const make = (base: LogFields): Logger => {
    const log = (level: LogLevel) => (message: string, given?: LogFields) => {
      if (order.indexOf(level) > least) return;
      const fields = { ...base, ...given };
      const span = tracing()?.current();
      span?.event(message, { level: levelName(level), ...attributesOf(fields) });
      const ids = span && withIds ? tracing()?.ids() : undefined;
      write(
        logLine(format, {
          level: levelName(level),
          message,
          fields: ids ? { ...fields, trace_id: ids.traceId, span_id: ids.spanId } : fields,
          time: clock(),
        }),
      );
    };
    return {
      trace: log('trace'),
      debug: log('debug'),
      info: log('info'),
      warn: log('warn'),
      error: log('error'),
      with: (fields) => make({ ...base, ...fields }),
    };
  };
  return make({});
}
