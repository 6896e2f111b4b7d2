/** One measured thing: a number for each daemon and how they compare. */
export interface Row {
  what: string;
  unit: string;
  gantry: number;
  /** Absent: the other has no such thing, or it was not measured. */
  peer?: number | undefined;
  /** Whether more is better (rates) or less (times, memory). */
  better: 'more' | 'less';
  /** How many times better it is meant to be, or what it must not exceed. */
  aim?: { times: number } | { most: number };
}

/** How many times better Gantry is: above 1 it wins. */
export function ratio({ better, gantry, peer }: Row): number | undefined {
  if (peer === undefined) return undefined;
  return better === 'more' ? gantry / peer : peer / gantry;
}

function format(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** The aim and whether it is reached. */
function aimOf(row: Row): string {
  const { aim } = row;
  if (!aim) return '';
  if ('most' in aim) return `≤ ${aim.most}: ${row.gantry <= aim.most ? 'yes' : 'no'}`;
  const reached = ratio(row);
  return `${aim.times}×: ${reached === undefined ? '–' : reached >= aim.times ? 'yes' : 'no'}`;
}

/** The rows as a Markdown table; ratios say how many times better Gantry is. */
export function report(rows: readonly Row[]): string {
  const aims = rows.some((row) => row.aim);
  const cells = [
    ['what', 'unit', 'gantry', 'containerd', 'times better', 'aim'],
    ...rows.map((row) => [
      row.what,
      row.unit,
      format(row.gantry),
      row.peer === undefined ? '–' : format(row.peer),
      ratio(row)?.toFixed(2) ?? '–',
      aimOf(row),
    ]),
  ].map((line) => (aims ? line : line.slice(0, -1)));
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((line) => line[column]!.length)));
  const line = (words: readonly string[]): string =>
    `| ${words.map((word, column) => (column < 2 ? word.padEnd(widths[column]!) : word.padStart(widths[column]!))).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [line(cells[0]!), rule, ...cells.slice(1).map(line)].join('\n');
}
