/** Sizes and times in the forms that containerd's ctr prints. */

const binaryUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `3.4 MiB`: one digit after the point, as ctr's image list and progress. */
export function binarySize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < binaryUnits.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${value.toFixed(1)} B` : `${value.toFixed(1)} ${binaryUnits[unit]}`;
}

const decimalUnits = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** `3.587MB`: four significant digits, as ctr's content list. */
export function decimalSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < decimalUnits.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${Number(value.toPrecision(4))}${decimalUnits[unit]}`;
}

/** How long ago, in words: `Less than a second`, `2 minutes`, `About an hour`, `3 weeks`. */
export function humanDuration(millis: number): string {
  const seconds = Math.floor(millis / 1000);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.floor(seconds / 3600 + 0.5);
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  const days = hours / 24;
  if (hours < 24 * 14) return `${Math.floor(days)} days`;
  if (hours < 24 * 60) return `${Math.floor(days / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(days / 30)} months`;
  return `${Math.floor(days / 365)} years`;
}

/** Labels as `a=b,c=d` in order, `-` for none. */
export function labelList(labels: Readonly<Record<string, string>>, none = '-'): string {
  const keys = Object.keys(labels).sort();
  return keys.length === 0 ? none : keys.map((key) => `${key}=${labels[key]}`).join(',');
}

/** `key=value` arguments; a bare key or an empty value removes a label where labels are set. */
export function parseLabels(words: readonly string[]): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const word of words) {
    const at = word.indexOf('=');
    labels[at < 0 ? word : word.slice(0, at)] = at < 0 ? '' : word.slice(at + 1);
  }
  return labels;
}
