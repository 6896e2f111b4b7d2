// Shows how a transfer goes: a picture that is drawn again and again on a terminal, a line for each step elsewhere.
import type { TransferProgress } from '@gantry/client';
import { ProgressModel } from './progress-model.ts';
import { drawProgress, printable, shortName, summaryOf } from './progress-picture.ts';
import { binarySize } from './units.ts';

/** Milliseconds between two pictures. */
const interval = 100;

/** Where progress is shown: standard output, or standard error for commands whose output is for programs. */
export type ProgressOutput = Pick<NodeJS.WriteStream, 'write' | 'columns' | 'rows' | 'isTTY'>;

/** A place where a transfer's progress is told; `finish` comes last. */
export interface ProgressView {
  update(progress: TransferProgress): void;
  finish(error?: unknown): void;
}

/** The view that suits where the output goes. */
export function progressView(title: string, output: ProgressOutput = process.stdout): ProgressView {
  return output.isTTY && process.env.TERM !== 'dumb' ? new Picture(title, output) : new Lines(title, output);
}

class Lines implements ProgressView {
  readonly #title: string;
  readonly #output: ProgressOutput;
  readonly #model = new ProgressModel(performance.now());

  constructor(title: string, output: ProgressOutput) {
    this.#title = title;
    this.#output = output;
  }

  update(progress: TransferProgress): void {
    const { item, changed } = this.#model.take(progress, performance.now());
    if (!changed) return;
    if (!item) this.#output.write(`${printable(this.#model.status)}\n`);
    else if (item.event !== 'waiting') {
      const size = item.total > 0 ? ` ${binarySize(item.total)}` : '';
      this.#output.write(`${shortName(item.name)}: ${printable(item.event)}${size}\n`);
    }
  }

  finish(error?: unknown): void {
    if (error) return;
    this.#output.write(`${this.#title}: done, ${summaryOf(this.#model, performance.now(), true)}\n`);
  }
}

class Picture implements ProgressView {
  readonly #title: string;
  readonly #output: ProgressOutput;
  readonly #model = new ProgressModel(performance.now());
  readonly #timer = setInterval(() => this.#draw(), interval);
  #drawn: string[] = [];

  constructor(title: string, output: ProgressOutput) {
    this.#title = title;
    this.#output = output;
    this.#timer.unref();
  }

  update(progress: TransferProgress): void {
    this.#model.take(progress, performance.now());
  }

  finish(error?: unknown): void {
    clearInterval(this.#timer);
    this.#draw(error === undefined);
  }

  #draw(finished = false): void {
    const size = { columns: this.#output.columns || 80, rows: this.#output.rows || 24 };
    const now = performance.now();
    const lines = drawProgress(this.#model, this.#title, size, now);
    if (finished) {
      const summary = `done, ${summaryOf(this.#model, now, true)}`;
      const whole = `${this.#title}: ${summary}`;
      lines.splice(-1, 1, whole.length < size.columns ? whole : summary);
    }
    const up = this.#drawn.length > 0 ? `\x1b[${this.#height(size.columns)}A\r` : '';
    // Line by line over the old picture, so that nothing flickers; what is left of it below goes.
    this.#output.write(`${up}${lines.map((line) => `${line}\x1b[K\n`).join('')}\x1b[J`);
    this.#drawn = lines;
  }

  /** Rows that the last picture takes now: a terminal made narrower since has broken its lines. */
  #height(columns: number): number {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
    const width = (line: string) => [...line.replace(/\x1b\[\d*m/g, '')].length;
    return this.#drawn.reduce((sum, line) => sum + Math.max(1, Math.ceil(width(line) / columns)), 0);
  }
}

/** Runs a transfer with a view on it. */
export async function withProgress<T>(
  title: string,
  work: (onProgress: (progress: TransferProgress) => void) => Promise<T>,
  output: ProgressOutput = process.stdout,
): Promise<T> {
  const view = progressView(title, output);
  try {
    const result = await work((progress) => view.update(progress));
    view.finish();
    return result;
  } catch (reason) {
    view.finish(reason);
    throw reason;
  }
}
