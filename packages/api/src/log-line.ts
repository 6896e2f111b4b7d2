// Log lines as containerd writes them: logrus text (`time="…" level=info msg="…" key=value`) or one JSON object a line.
import { formatTime, type Time } from './time.ts';

export interface LogLine {
  /** As it stands in the line: logrus says `warning`. */
  readonly level: string;
  readonly message: string;
  /** `error` is printed as its message, numbers of any size as digits; undefined is left out. */
  readonly fields: Readonly<Record<string, unknown>>;
  readonly time: Time;
}

/** The line with its line end. Fields come sorted by name after time, level and message. */
export function logLine(format: 'text' | 'json', { level, message, fields, time }: LogLine): string {
  const all = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  if (format === 'json') {
    const line = { ...Object.fromEntries(all), level, msg: message, time: stamp(time) };
    return `${JSON.stringify(line, (_, value: unknown) => plain(value))}\n`;
  }
  const tail = all.map(([name, value]) => ` ${name}=${quoted(textOf(value))}`).join('');
  return `time=${JSON.stringify(stamp(time))} level=${level} msg=${JSON.stringify(message)}${tail}\n`;
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
