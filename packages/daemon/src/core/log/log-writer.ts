// Log lines as containerd writes them: logrus text (`time="…" level=info msg="…" key=value`) or one JSON object a line.
import { formatTime, now, type Time } from '@gantry/api';
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
  /** The clock, for tests. */
  now?: () => Time;
}

/** A time with always nine digits of fraction, as containerd's log has it. */
function stamp(time: Time): string {
  return `${formatTime({ seconds: time.seconds, nanos: 0 }).slice(0, 19)}.${String(time.nanos).padStart(9, '0')}Z`;
}

function plain(value: unknown): unknown {
  if (value instanceof Error) return value.message;
  if (typeof value === 'bigint') return value.toString();
  return value;
}

function textOf(value: unknown): string {
  const simple = plain(value);
  if (typeof simple === 'string') return simple;
  if (typeof simple === 'object' && simple !== null) {
    return JSON.stringify(simple, (_, inner: unknown) => plain(inner)) ?? String(simple);
  }
  return String(simple);
}

function quoted(text: string): string {
  return text !== '' && /^[A-Za-z0-9\-._/@^+]+$/.test(text) ? text : JSON.stringify(text);
}

/** A logger that writes lines. Fields come sorted by name after time, level and message. */
export function createLogger(options: LogOptions = {}): Logger {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const clock = options.now ?? now;
  const least = order.indexOf(options.level ?? 'info');
  const json = options.format === 'json';

  const make = (base: LogFields): Logger => {
    const log = (level: LogLevel) => (message: string, fields?: LogFields) => {
      if (order.indexOf(level) > least) return;
      const all = Object.entries({ ...base, ...fields })
        .filter(([, value]) => value !== undefined)
        .sort(([a], [b]) => (a < b ? -1 : 1));
      const time = stamp(clock());
      if (json) {
        const line = { ...Object.fromEntries(all), level: levelName(level), msg: message, time };
        write(`${JSON.stringify(line, (_, value: unknown) => plain(value))}\n`);
        return;
      }
      const tail = all.map(([name, value]) => ` ${name}=${quoted(textOf(value))}`).join('');
      write(`time=${JSON.stringify(time)} level=${levelName(level)} msg=${JSON.stringify(message)}${tail}\n`);
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
