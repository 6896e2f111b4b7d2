// Go's durations (`1h0m0.5s`), the form that containerd's configuration has for every span of time.
const units: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, μs: 1e-3, ms: 1, s: 1e3, m: 6e4, h: 3.6e6 };

/** Milliseconds of a Go duration; undefined if the text is not one. A bare number is only one if it is 0. */
export function parseDuration(text: string): number | undefined {
  const match = /^([+-]?)(.+)$/.exec(text.trim());
  if (!match) return undefined;
  const body = match[2]!;
  if (body === '0') return 0;
  if (!/^(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(body)) return undefined;
  let total = 0;
  for (const [, amount, unit] of body.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    total += Number(amount) * units[unit!]!;
  }
  return match[1] === '-' ? -total : total;
}

/** Milliseconds as Go prints a duration: `5m0s`, `100ms`, `0s`. */
export function formatDuration(millis: number): string {
  if (millis === 0) return '0s';
  if (millis < 0) return `-${formatDuration(-millis)}`;
  const trim = (value: number, digits: number) => String(Number(value.toFixed(digits)));
  if (millis < 1e-3) return `${trim(millis * 1e6, 0)}ns`;
  if (millis < 1) return `${trim(millis * 1e3, 3)}µs`;
  if (millis < 1000) return `${trim(millis, 6)}ms`;
  const hours = Math.floor(millis / 3.6e6);
  const minutes = Math.floor((millis - hours * 3.6e6) / 6e4);
  const seconds = `${trim((millis - hours * 3.6e6 - minutes * 6e4) / 1000, 9)}s`;
  return hours > 0 ? `${hours}h${minutes}m${seconds}` : minutes > 0 ? `${minutes}m${seconds}` : seconds;
}
