// Counters, gauges and histograms in Prometheus' text format: as much of it as a daemon needs, without a library.
type Labels = Readonly<Record<string, string>>;

/** One metric: its name, and its samples at the time it is asked for. */
export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  samples(): Iterable<{ suffix?: string; labels?: Labels; value: number }>;
}

function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => {
    const escaped = value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"');
    return `${name}="${escaped}"`;
  });
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

function numberText(value: number): string {
  return value === Infinity ? '+Inf' : value === -Infinity ? '-Inf' : String(value);
}

/** Counts up, one number for each set of labels. */
export class Counter implements Metric {
  readonly type = 'counter';
  readonly name: string;
  readonly help: string;
  readonly #values = new Map<string, { labels: Labels; value: number }>();

  constructor(name: string, help: string) {
    this.name = name;
    this.help = help;
  }

  add(labels: Labels, amount = 1): void {
    this.cell(labels).value += amount;
  }

  /** The number of one set of labels, for callers that count often: they keep it and add to its value themselves. */
  cell(labels: Labels): { value: number } {
    const key = labelText(labels);
    let entry = this.#values.get(key);
    if (!entry) {
      entry = { labels, value: 0 };
      this.#values.set(key, entry);
    }
    return entry;
  }

  samples(): Iterable<{ labels: Labels; value: number }> {
    return this.#values.values();
  }
}

/** A number that is asked for when it is shown. */
export class Gauge implements Metric {
  readonly type: 'gauge' | 'counter';
  readonly name: string;
  readonly help: string;
  readonly #read: () => number | Iterable<{ labels: Labels; value: number }>;

  constructor(
    name: string,
    help: string,
    read: () => number | Iterable<{ labels: Labels; value: number }>,
    type: 'gauge' | 'counter' = 'gauge',
  ) {
    this.name = name;
    this.help = help;
    this.type = type;
    this.#read = read;
  }

  samples(): Iterable<{ labels?: Labels; value: number }> {
    const value = this.#read();
    return typeof value === 'number' ? [{ value }] : value;
  }
}

/** Prometheus' own default buckets, in seconds. */
const defaultBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** How often values fell under each bound. */
export class Histogram implements Metric {
  readonly type = 'histogram';
  readonly name: string;
  readonly help: string;
  readonly #bounds: readonly number[];
  readonly #values = new Map<string, { labels: Labels; counts: number[]; sum: number; count: number }>();

  constructor(name: string, help: string, bounds: readonly number[] = defaultBuckets) {
    this.name = name;
    this.help = help;
    this.#bounds = bounds;
  }

  /** Shown from now on, with zeros. */
  declare(labels: Labels): this {
    this.#entry(labels);
    return this;
  }

  #entry(labels: Labels): { labels: Labels; counts: number[]; sum: number; count: number } {
    const key = labelText(labels);
    let entry = this.#values.get(key);
    if (!entry) {
      entry = { labels, counts: this.#bounds.map(() => 0), sum: 0, count: 0 };
      this.#values.set(key, entry);
    }
    return entry;
  }

  observe(labels: Labels, value: number): void {
    const entry = this.#entry(labels);
    entry.sum += value;
    entry.count += 1;
    const at = this.#bounds.findIndex((bound) => value <= bound);
    if (at >= 0) entry.counts[at]! += 1;
  }

  *samples(): Iterable<{ suffix: string; labels: Labels; value: number }> {
    for (const { labels, counts, sum, count } of this.#values.values()) {
      let below = 0;
      for (const [index, bound] of this.#bounds.entries()) {
        below += counts[index]!;
        yield { suffix: '_bucket', labels: { ...labels, le: numberText(bound) }, value: below };
      }
      yield { suffix: '_bucket', labels: { ...labels, le: '+Inf' }, value: count };
      yield { suffix: '_sum', labels, value: sum };
      yield { suffix: '_count', labels, value: count };
    }
  }
}

/** Values that were read just now. */
export class FixedMetric implements Metric {
  readonly type = 'gauge';
  readonly name: string;
  readonly help: string;
  readonly #samples: { labels: Labels; value: number }[] = [];

  constructor(name: string, help: string) {
    this.name = name;
    this.help = help;
  }

  add(labels: Labels, value: number): void {
    this.#samples.push({ labels, value });
  }

  samples(): Iterable<{ labels: Labels; value: number }> {
    return this.#samples;
  }
}

/** All metrics of a daemon. */
export class MetricsRegistry {
  readonly #metrics = new Map<string, Metric>();
  readonly #collectors: (() => Promise<Metric[]>)[] = [];

  /** Adds a metric, in place of one of the same name. */
  register<M extends Metric>(metric: M): M {
    this.#metrics.set(metric.name, metric);
    return metric;
  }

  /** Adds metrics that have to be asked for when they are shown. One that rejects is left out. */
  collect(collector: () => Promise<Metric[]>): void {
    this.#collectors.push(collector);
  }

  /** The text that Prometheus reads, metrics in order of their names. */
  async render(): Promise<string> {
    const collected = await Promise.all(this.#collectors.map((collector) => collector().catch(() => [])));
    const lines: string[] = [];
    const metrics = [...this.#metrics.values(), ...collected.flat()];
    for (const metric of metrics.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const samples = [...metric.samples()];
      if (samples.length === 0) continue;
      lines.push(`# HELP ${metric.name} ${metric.help}`, `# TYPE ${metric.name} ${metric.type}`);
      for (const { suffix, labels, value } of samples) {
        lines.push(`${metric.name}${suffix ?? ''}${labelText(labels ?? {})} ${numberText(value)}`);
      }
    }
    return `${lines.join('\n')}\n`;
  }
}
