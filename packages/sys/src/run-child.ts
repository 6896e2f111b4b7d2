/** Programs that are given something, answer something and end. */
import net from 'node:net';
import { close } from './files.ts';
import { pipe2 } from './pipes.ts';
import { kill, watchProcess } from './processes.ts';
import { type Child, type Exit, spawn, waitExit } from './spawn.ts';

export interface RunOptions {
  file: string;
  args?: readonly string[];
  /** The whole environment; default: this process's own. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Written to its standard input, which then ends. */
  input?: Uint8Array;
  /** Milliseconds until it is killed with all of its process group. */
  timeoutMs: number;
  /** Bytes of standard output and of standard error that count; the rest is read and dropped. */
  limit: number;
  /** Told what it says on standard error, line by line as it comes; left out: that is dropped. */
  onErrorLine?: (line: string) => void;
  /** Kills it as the end of its time does. */
  signal?: AbortSignal | undefined;
  /** What it leaves of its process group, when it ended by itself, goes on. */
  sparesGroup?: boolean;
  /** Told its number. */
  onStart?: ((pid: number) => void) | undefined;
}

export interface Output {
  bytes: Buffer;
  truncated: boolean;
}

export interface RunResult {
  exit: Exit;
  /** It was killed because its time was over. */
  late: boolean;
  stdout: Output;
}

/**
 * Runs a program in a process group of its own, with no descriptor but its standard ones, until it has ended and nobody holds
 * its output open; then whatever is left of the group is killed.
 * @throws SysError if it cannot be started; the signal's reason if that came before
 */
export async function runChild(options: RunOptions): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const { child, stdin, stdout, stderr } = start(options);
  const pipes = [stdin, stdout, stderr];
  let late = false;
  let whole = false;
  const end = (): void => {
    if (!whole || !options.sparesGroup) killGroup(child);
    for (const pipe of pipes) pipe.destroy();
  };
  const timer = setTimeout(() => {
    late = true;
    end();
  }, options.timeoutMs);
  options.signal?.addEventListener('abort', end, { once: true });
  const outputs = Promise.all([
    collect(stdout, options.limit),
    forwardLines(stderr, options.limit, options.onErrorLine),
  ]);
  stdin.end(options.input ?? '');
  let exit: Exit;
  try {
    options.onStart?.(child.pid);
    await watchProcess(child.pidfd);
    await outputs;
    whole = !late && !options.signal?.aborted;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', end);
    // Its number is still its own: it is collected only now.
    end();
    exit = await waitExit(child);
  }
  const [out] = await outputs;
  return { exit, late, stdout: out };
}

/** Go's words for signals, which containerd's users search for. */
const signalWords: Record<number, string> = {
  1: 'hangup',
  2: 'interrupt',
  3: 'quit',
  4: 'illegal instruction',
  5: 'trace/breakpoint trap',
  6: 'aborted',
  7: 'bus error',
  8: 'floating point exception',
  9: 'killed',
  10: 'user defined signal 1',
  11: 'segmentation fault',
  12: 'user defined signal 2',
  13: 'broken pipe',
  14: 'alarm clock',
  15: 'terminated',
};

/** The same words that Go has for a signal, or its number. */
export function signalWord(signal: number): string {
  return signalWords[signal] ?? String(signal);
}

interface Started {
  child: Child;
  stdin: net.Socket;
  stdout: net.Socket;
  stderr: net.Socket;
}

/** Pipes, not the sockets that Node's own spawn makes: scripts write to /dev/stderr, which a socket cannot be opened by. */
function start({ file, args = [], env }: RunOptions): Started {
  const ours: number[] = [];
  const theirs: number[] = [];
  const pair = (mine: 0 | 1): void => {
    const ends = pipe2();
    ours.push(ends[mine]);
    theirs.push(ends[mine === 0 ? 1 : 0]);
  };
  try {
    pair(1);
    pair(0);
    pair(0);
    const [input = null, output = null, errors = null] = theirs;
    const child = spawn({
      file,
      args,
      stdio: [input, output, errors],
      setsid: true,
      ...(env && { env }),
    });
    const [toChild = -1, fromChild = -1, errorsOfChild = -1] = ours.splice(0);
    const stdin = new net.Socket({ fd: toChild, readable: false, writable: true });
    // A program need not read what it is given.
    stdin.on('error', () => undefined);
    return { child, stdin, stdout: reader(fromChild), stderr: reader(errorsOfChild) };
  } catch (error) {
    for (const fd of ours) close(fd);
    throw error;
  } finally {
    for (const fd of theirs) close(fd);
  }
}

function reader(fd: number): net.Socket {
  return new net.Socket({ fd, readable: true, writable: false });
}

function collect(pipe: net.Socket, limit: number): Promise<Output> {
  const chunks: Buffer[] = [];
  let kept = 0;
  let truncated = false;
  pipe.on('data', (chunk: Buffer) => {
    const piece = chunk.subarray(0, limit - kept);
    if (piece.length < chunk.length) truncated = true;
    if (piece.length > 0) chunks.push(piece);
    kept += piece.length;
  });
  return new Promise((resolve) => {
    pipe.on('error', () => undefined);
    pipe.on('close', () => resolve({ bytes: Buffer.concat(chunks), truncated }));
  });
}

/** Hands lines on as they come, and then a word on what was too much. */
function forwardLines(
  pipe: net.Socket,
  limit: number,
  onLine: (line: string) => void = () => undefined,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = '';
  let left = limit;
  let truncated = false;
  pipe.on('data', (chunk: Buffer) => {
    const piece = chunk.subarray(0, left);
    truncated ||= piece.length < chunk.length;
    left -= piece.length;
    const lines = (rest + decoder.decode(piece, { stream: true })).split(/\r?\n/);
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line);
  });
  return new Promise((resolve) => {
    pipe.on('error', () => undefined);
    pipe.on('close', () => {
      if (rest !== '') onLine(rest);
      if (truncated) onLine('(previous logs may be truncated)');
      resolve();
    });
  });
}

function killGroup({ pid }: Child): void {
  try {
    kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}
