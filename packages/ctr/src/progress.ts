// Shows how a transfer goes: bars on a terminal, a line for each step elsewhere.
import type { TransferProgress } from '@gantry/client';
import { binarySize } from './units.ts';

interface Item {
  event: string;
  name: string;
  progress: number;
  total: number;
  depth: number;
}

const barWidth = 38;
/** Milliseconds between two pictures. */
const interval = 100;

/** A place where a transfer's progress is told; `finish` comes last. */
export interface ProgressView {
  update(progress: TransferProgress): void;
  finish(error?: unknown): void;
}

/** The view that suits where the output goes. */
export function progressView(title: string): ProgressView {
  return process.stdout.isTTY ? new Bars(title) : new Lines(title);
}

abstract class View {
  protected readonly title: string;
  protected readonly started = performance.now();
  /** In the order they were first heard of, children behind their parents. */
  protected readonly items = new Map<string, Item>();
  protected readonly children = new Map<string, string[]>();
  protected status = '';

  constructor(title: string) {
    this.title = title;
  }

  /** @returns whether anything a reader would notice has changed in the item, which is undefined for the whole */
  protected take(update: TransferProgress): { item: Item | undefined; changed: boolean } {
    const { event, name, parents, progress, total } = update;
    if (name === '' || (!update.descriptor && parents.length === 0)) {
      const status = name ? `${name}: ${event}` : event;
      const changed = status !== this.status;
      this.status = status;
      return { item: undefined, changed };
    }
    const item = this.items.get(name);
    if (!item) {
      const parent = parents.find((candidate) => this.items.has(candidate)) ?? '';
      const made = { event, name, progress, total, depth: parent ? this.items.get(parent)!.depth + 1 : 0 };
      this.items.set(name, made);
      this.children.set(parent, [...(this.children.get(parent) ?? []), name]);
      return { item: made, changed: true };
    }
    const changed = item.event !== event;
    Object.assign(item, { event, progress, total: total || item.total });
    return { item, changed };
  }

  protected summary(): string {
    const seconds = (performance.now() - this.started) / 1000;
    let bytes = 0;
    for (const { progress } of this.items.values()) bytes += progress;
    return `elapsed: ${seconds.toFixed(1)} s  total: ${binarySize(bytes)} (${binarySize(bytes / Math.max(seconds, 0.001))}/s)`;
  }
}

/** `layer-sha256:ea337e77bcd3…` as `layer (ea337e77bcd3)`. */
function shortName(name: string): string {
  const match = /^(.*?)-?(?:sha\d+):([0-9a-f]{12})[0-9a-f]*$/.exec(name);
  return match ? `${match[1] || 'blob'} (${match[2]})` : name;
}

class Lines extends View implements ProgressView {
  update(progress: TransferProgress): void {
    const { item, changed } = this.take(progress);
    if (!changed) return;
    if (!item) process.stdout.write(`${this.status}\n`);
    else if (item.event !== 'waiting')
      process.stdout.write(
        `${shortName(item.name)}: ${item.event}${item.total > 0 ? ` ${binarySize(item.total)}` : ''}\n`,
      );
  }

  finish(error?: unknown): void {
    if (!error) process.stdout.write(`${this.title}: done, ${this.summary()}\n`);
  }
}

class Bars extends View implements ProgressView {
  #drawn = 0;
  readonly #timer = setInterval(() => this.#draw(), interval);

  update(progress: TransferProgress): void {
    this.take(progress);
  }

  finish(error?: unknown): void {
    clearInterval(this.#timer);
    this.#draw();
    if (!error) process.stdout.write(`${this.title}: done\n`);
  }

  #draw(): void {
    const columns = process.stdout.columns || 80;
    // Only what fits on the screen can be drawn over again.
    const most = Math.max(3, (process.stdout.rows || 24) - 2);
    const lines = [this.status || this.title, ...this.#tree()];
    const shown = lines.length < most ? lines : [...lines.slice(0, most - 2), `… and ${lines.length - most + 2} more`];
    const picture = [...shown, this.summary()].map((line) => `\x1b[2K${clip(line, columns - 1)}\n`).join('');
    process.stdout.write(`${this.#drawn > 0 ? `\x1b[${this.#drawn}A` : ''}\x1b[J${picture}`);
    this.#drawn = shown.length + 1;
  }

  #tree(parent = '', prefix = ''): string[] {
    const names = this.children.get(parent) ?? [];
    return names.flatMap((name, index) => {
      const last = index === names.length - 1;
      const head = `${prefix}${last ? '└──' : '├──'}${shortName(name)}`;
      return [
        `${head.padEnd(40)} ${this.#bar(this.items.get(name)!)}`,
        ...this.#tree(name, `${prefix}${last ? '   ' : '│  '}`),
      ];
    });
  }

  #bar({ event, progress, total, depth }: Item): string {
    // The image as a whole has no size of its own.
    if (depth === 0 && total === 0) return event;
    const done = ['complete', 'extracted', 'already exists', 'exists'].includes(event);
    const share = done ? 1 : total > 0 ? Math.min(1, progress / total) : 0;
    const full = Math.round(share * barWidth);
    const amount =
      !done && total > 0 ? ` ${binarySize(progress)}/${binarySize(total)}` : total > 0 ? ` ${binarySize(total)}` : '';
    return `${event.padEnd(14)} |\x1b[32m${'+'.repeat(full)}\x1b[0m${'-'.repeat(barWidth - full)}|${amount}`;
  }
}

/** Cuts a line to a width; escape sequences take none. */
function clip(line: string, width: number): string {
  let seen = 0;
  let result = '';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
  for (const [part] of line.matchAll(/\x1b\[\d*m|./gu)) {
    if (part.startsWith('\x1b')) result += part;
    else if (seen < width) {
      result += part;
      seen++;
    }
  }
  return result;
}

/** Runs a transfer with a view on it. */
export async function withProgress<T>(
  title: string,
  work: (onProgress: (progress: TransferProgress) => void) => Promise<T>,
): Promise<T> {
  const view = progressView(title);
  try {
    const result = await work((progress) => view.update(progress));
    view.finish();
    return result;
  } catch (reason) {
    view.finish(reason);
    throw reason;
  }
}
