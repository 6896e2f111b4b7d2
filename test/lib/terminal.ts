import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import tty from 'node:tty';
import { close, openPty, setWinsize, type Winsize } from '@gantry/sys';
import { eventually } from './processes.ts';

/** A program on a terminal of its own, as a person would have it: type, wait for what appears, change the window's size. */
export class Terminal {
  readonly #child: ChildProcess;
  readonly #master: number;
  readonly #screen: tty.ReadStream;
  readonly #exited: Promise<number>;
  #shown = '';
  #from = 0;

  constructor(file: string, args: readonly string[], env: Record<string, string> = {}, size = { rows: 40, cols: 100 }) {
    const { master, slave } = openPty();
    setWinsize(master, size);
    this.#master = master;
    this.#child = spawn(file, args, { stdio: [slave, slave, slave], env: { ...process.env, TERM: 'dumb', ...env } });
    close(slave);
    this.#screen = new tty.ReadStream(master);
    this.#screen.setEncoding('utf8').on('data', (text: string) => {
      this.#shown += text;
    });
    // Reading a master whose last slave is closed ends with EIO.
    this.#screen.on('error', () => undefined);
    this.#exited = once(this.#child, 'exit').then(([code]) => (code as number | null) ?? 255);
  }

  /** All that was shown so far. */
  get shown(): string {
    return this.#shown;
  }

  type(text: string): void {
    writeSync(this.#master, text);
  }

  /** Waits for a text after the one waited for before; answers what came up to its end. */
  async expect(text: string | RegExp): Promise<string> {
    return eventually(
      `the terminal shows ${text}; it shows ${JSON.stringify(this.#shown.slice(-500))}`,
      () => {
        const rest = this.#shown.slice(this.#from);
        const found = typeof text === 'string' ? { index: rest.indexOf(text), length: text.length } : match(rest, text);
        if (found.index < 0) return undefined;
        this.#from += found.index + found.length;
        return rest.slice(0, found.index + found.length);
      },
      60_000,
    );
  }

  /** Changes the window's size; the program is told as by a terminal emulator. */
  resize(size: Winsize): void {
    setWinsize(this.#master, size);
    // The terminal is not its controlling one, so the kernel tells nobody.
    this.#child.kill('SIGWINCH');
  }

  /** Waits for its end. @returns the exit code */
  async end(): Promise<number> {
    const code = await this.#exited;
    this.#screen.destroy();
    return code;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

function match(text: string, pattern: RegExp): { index: number; length: number } {
  const found = pattern.exec(text);
  return { index: found?.index ?? -1, length: found?.[0].length ?? 0 };
}
