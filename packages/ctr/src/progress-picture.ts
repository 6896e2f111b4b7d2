// A transfer as lines of text for a terminal of some width and height.
import { isEnded, type ProgressItem, type ProgressModel } from './progress-model.ts';
import { binarySize } from './units.ts';

export interface PictureSize {
  columns: number;
  rows: number;
}

/** https://no-color.org */
const colours = !process.env.NO_COLOR;
const green = colours ? '\x1b[32m' : '';
const plain = colours ? '\x1b[0m' : '';
const barMost = 40;
const barLeast = 8;

/** The tree of things that move, and a line for the whole; no line is wider than the terminal, and no more than fit on it. */
export function drawProgress(model: ProgressModel, title: string, size: PictureSize, now: number): string[] {
  const width = Math.max(1, size.columns - 1);
  const rows = treeRows(model, '', '');
  // What has no size of its own has nothing behind its state, and needs no column.
  const nameWidth = Math.max(0, ...rows.map(({ head, item }) => (item.total > 0 ? textWidth(head) : 0)));
  const eventWidth = Math.max(0, ...rows.map(({ item }) => (item.total > 0 ? item.event.length : 0)));
  const tails = rows.map(({ item }) => tailOf(model, item, now));
  const tailWidth = Math.max(0, ...tails.map((tail) => tail.length));
  // name event |bar| tail
  const bar = Math.min(barMost, width - nameWidth - eventWidth - tailWidth - 5);
  const lines = rows.map(({ head, item }, at) => {
    const event = bar >= barLeast || tails[at] ? item.event.padEnd(eventWidth) : item.event;
    const parts = [pad(head, nameWidth), event];
    if (bar >= barLeast && item.total > 0) parts.push(barOf(item, bar));
    if (tails[at]) parts.push(tails[at]);
    return clip(parts.join(' ').trimEnd(), width);
  });
  const first = clip(model.status || title, width);
  const room = Math.max(1, size.rows - 3);
  const shown = lines.length <= room ? lines : folded(lines, rows, room, width);
  return [first, ...shown, clip(summaryOf(model, now), width)];
}

/** Of more lines than fit: those of things that move go before those that are done or wait. */
function folded(lines: string[], rows: readonly { item: ProgressItem }[], room: number, width: number): string[] {
  const rank = ({ item }: { item: ProgressItem }): number => {
    if (item.total === 0) return 0;
    if (isEnded(item)) return 3;
    return item.event === 'waiting' ? 2 : 1;
  };
  const order = rows.map((row, at) => ({ at, rank: rank(row) })).sort((a, b) => a.rank - b.rank || a.at - b.at);
  const kept = order
    .slice(0, Math.max(0, room - 1))
    .map(({ at }) => at)
    .sort((a, b) => a - b);
  const hidden = rows.filter((_, at) => !kept.includes(at));
  const done = hidden.filter(({ item }) => isEnded(item)).length;
  return [...kept.map((at) => lines[at]!), clip(`… and ${hidden.length} more, ${done} of them done`, width)];
}

/** The last line: time, bytes, rate, time left. */
export function summaryOf(model: ProgressModel, now: number, finished = false): string {
  const seconds = (now - model.startedAt) / 1000;
  const { moved } = model;
  const rate = finished ? moved / Math.max(seconds, 0.001) : model.rate(now);
  const left = finished ? undefined : model.secondsLeft(now);
  const parts = [`elapsed: ${seconds.toFixed(1)} s`, `total: ${binarySize(moved)} (${binarySize(rate)}/s)`];
  if (left !== undefined) parts.push(`left: ${briefTime(left)}`);
  return parts.join('  ');
}

/** `layer-sha256:ea337e77bcd3…` as `layer (ea337e77bcd3)`; the names of images as they are. */
export function shortName(name: string): string {
  const match = /^(?:(manifest|index|layer|config|attestation|unknown)-(?:.*@)?)?sha\d+:([0-9a-f]{12})[0-9a-f]*$/.exec(
    name,
  );
  return match ? `${match[1] ?? 'blob'} (${match[2]})` : printable(name);
}

/** `8s`, `2m05s`, `1h03m`. */
export function briefTime(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 360_000) return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
  return 'days';
}

/** Names come from registries: what a terminal would take as a command is shown as a question mark. */
export function printable(text: string): string {
  return text.replace(/\p{C}/gu, '?');
}

function treeRows(
  model: ProgressModel,
  parent: string,
  prefix: string,
  seen = new Set<string>(),
): { head: string; item: ProgressItem }[] {
  const items = model.below(parent).filter(({ name }) => !seen.has(name));
  return items.flatMap((item, at) => {
    seen.add(item.name);
    const last = at === items.length - 1;
    const branch = parent === '' ? '' : last ? '└──' : '├──';
    const rest = parent === '' ? '' : last ? '   ' : '│  ';
    return [
      { head: `${prefix}${branch}${shortName(item.name)}`, item },
      ...treeRows(model, item.name, prefix + rest, seen),
    ];
  });
}

/** Amount, rate and time left; nothing for what has no size. */
function tailOf(model: ProgressModel, item: ProgressItem, now: number): string {
  const { progress, total } = item;
  if (total === 0) return progress > 0 ? binarySize(progress) : '';
  if (isEnded(item) || progress === 0) return binarySize(total);
  const parts = [`${binarySize(progress)}/${binarySize(total)}`];
  const still = model.stalled(now, item);
  const rate = model.rate(now, item);
  const left = model.secondsLeft(now, item);
  if (still > 0) parts.push(`stalled ${briefTime(still / 1000)}`);
  else if (rate > 0) parts.push(`${binarySize(rate)}/s`, ...(left === undefined ? [] : [briefTime(left)]));
  return parts.join('  ');
}

function barOf(item: ProgressItem, width: number): string {
  const share = isEnded(item) ? 1 : Math.min(1, item.progress / item.total);
  const full = Math.floor(share * (width - 2));
  return `|${green}${'+'.repeat(full)}${plain}${'-'.repeat(width - 2 - full)}|`;
}

function textWidth(text: string): number {
  return [...text].length;
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - textWidth(text)));
}

/** Cuts a line to a width; escape sequences take none, and are all kept. */
export function clip(line: string, width: number): string {
  let seen = 0;
  let result = '';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
  for (const [part] of line.matchAll(/\x1b\[\d*m|./gsu)) {
    if (part.startsWith('\x1b')) result += part;
    else if (seen < width) {
      result += part;
      seen++;
    }
  }
  return result;
}
