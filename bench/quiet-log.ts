import { closeSync, openSync, readSync, watch } from 'node:fs';
import { eventually } from '../test/lib/processes.ts';

/** Follows the log of a container that says now and then what time it is, as `kubectl logs -f` would, and notes how late that is. */
export class QuietLog {
  /** What the container runs: fifty lines a second. */
  static readonly command = 'while :; do echo $EPOCHREALTIME; usleep 20000; done';

  readonly #fd: number;
  readonly #watcher;
  readonly #buffer = Buffer.alloc(64 << 10);
  #rest = '';
  #delays: number[] = [];

  private constructor(file: string) {
    this.#fd = openSync(file, 'r');
    this.#watcher = watch(file, () => this.#read());
  }

  /** Once the container writes. */
  static async watch(file: string): Promise<QuietLog> {
    const log = await eventually('the quiet container has a log', () => {
      try {
        return new QuietLog(file);
      } catch {
        return undefined;
      }
    });
    await eventually('the quiet container writes', () => (log.#delays.length > 5 ? true : undefined), 60_000);
    log.#delays = [];
    return log;
  }

  #read(): void {
    const now = Date.now();
    for (let count = this.#more(); count > 0; count = this.#more()) {
      const lines = (this.#rest + this.#buffer.toString('latin1', 0, count)).split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) this.#delays.push(Math.max(0, now - Number(line.split(' ')[3]) * 1000));
    }
  }

  #more(): number {
    return readSync(this.#fd, this.#buffer);
  }

  /** Milliseconds by which each line was late, sorted. */
  end(): number[] {
    this.#watcher.close();
    closeSync(this.#fd);
    return this.#delays.sort((a, b) => a - b);
  }
}
