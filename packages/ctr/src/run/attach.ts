// Ties a container's streams to those of this program: plain pipes, or a terminal.
import type { Process, ProcessIo } from '@gantry/client';

/** What this program undoes when the process has ended. */
export interface Attachment {
  /** Resolves when all output is written; gives up after a while on outputs that somebody else holds open. */
  finish(): Promise<void>;
  /** Gives the terminal back. */
  release(): void;
}

/** Milliseconds that outputs have to end after their process did. */
const drainLimit = 10_000;

/** Puts this program's terminal into raw mode. @throws Error if it has none */
export function rawTerminal(): () => void {
  const { stdin } = process;
  if (!stdin.isTTY) throw new Error('provided file is not a console');
  stdin.setRawMode(true);
  const release = (): void => void stdin.setRawMode(false);
  process.once('exit', release);
  return () => {
    process.off('exit', release);
    release();
  };
}

/** Copies input and output. With a terminal, `rawTerminal` comes first. */
export function attachStreams(io: ProcessIo): Attachment {
  showOutput(io);
  // An input that cannot be read is as good as none.
  if (io.stdin) process.stdin.once('error', () => io.stdin?.end()).pipe(io.stdin);
  return {
    async finish() {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, drainLimit);
      });
      await Promise.race([io.drained(), late]);
      clearTimeout(timer);
    },
    release() {
      process.stdin.unpipe();
      process.stdin.pause();
    },
  };
}

/** Shows what a process says before it is left to itself. */
export function showOutput(io: ProcessIo): void {
  io.stdout?.pipe(process.stdout, { end: false });
  io.stderr?.pipe(process.stderr, { end: false });
}

/** Gives a process's terminal the size of this one, now and whenever it changes. */
export async function followSize(target: Process): Promise<() => void> {
  const tell = async (): Promise<void> => {
    const { columns, rows } = process.stdout;
    // A process that has just ended needs no size.
    if (columns && rows) await target.resize(columns, rows).catch(() => undefined);
  };
  const listener = (): void => void tell();
  process.stdout.on('resize', listener);
  await tell();
  return () => process.stdout.off('resize', listener);
}

const forwarded = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGUSR1',
  'SIGUSR2',
  'SIGTERM',
  'SIGCONT',
  'SIGTSTP',
  'SIGTTIN',
  'SIGTTOU',
  'SIGIO',
  'SIGWINCH',
] as const;

/** Sends the signals this program gets to the process instead. */
export function forwardSignals(target: Process): () => void {
  const listener = (signal: NodeJS.Signals): void => {
    // Not found: it has ended, and so will this program.
    target.kill(signal).catch(() => undefined);
  };
  for (const signal of forwarded) process.on(signal, listener);
  return () => {
    for (const signal of forwarded) process.off(signal, listener);
  };
}
