import { readSync } from 'node:fs';
import { failedPrecondition, unknown } from '@gantry/api';
import { type Child, close, hasErrno, pidfdSendSignal, pipe2, readable, spawn, waitExit } from '@gantry/sys';
import { log } from '../log.ts';
import type { Stdio } from '../oci-runtime.ts';
import type { IoContext, ProcessIo, StdioRequest, TerminalSize } from './process-io.ts';
import { TerminalIo } from './terminal-io.ts';

/** How long a logger may take to say that it is ready, and to end after its input did. */
const readyTimeoutMs = 10_000;
const endTimeoutMs = 10_000;

/** A running logging program and the writing ends of its two pipes. */
interface Logger {
  child: Child;
  stdout: number;
  stderr: number;
}

/**
 * `binary://` loggers, by containerd's contract: the program gets the streams' reading ends as descriptors 3 and 4, says that it is
 * ready by closing descriptor 5, learns the container from CONTAINER_ID and CONTAINER_NAMESPACE, and ends when its input does.
 */
export class LoggerIo implements ProcessIo {
  readonly stdio: Stdio;
  readonly consoleSocket?: string;
  readonly #logger: Logger;
  readonly #ended: Promise<unknown>;
  readonly #terminal: TerminalIo | undefined;

  private constructor(logger: Logger, terminal: TerminalIo | undefined) {
    this.#logger = logger;
    this.#terminal = terminal;
    this.#ended = waitExit(logger.child, { unref: true }).catch((error) =>
      log.warn('waiting for a logger failed', { error }),
    );
    this.stdio = terminal ? terminal.stdio : [null, logger.stdout, logger.stderr];
    if (terminal) this.consoleSocket = terminal.consoleSocket;
  }

  static async open(request: StdioRequest, context: IoContext): Promise<LoggerIo> {
    const logger = await startLogger(request.stdout, context);
    if (!request.terminal) return new LoggerIo(logger, undefined);
    try {
      const terminal = await TerminalIo.open({ ...request, stdout: '' }, context, logger.stdout);
      logger.stdout = -1;
      return new LoggerIo(logger, terminal);
    } catch (error) {
      new LoggerIo(logger, undefined).close();
      throw error;
    }
  }

  async started(): Promise<void> {
    this.#closeEnds();
    await this.#terminal?.started();
  }

  resize(size: TerminalSize): void {
    if (!this.#terminal) throw failedPrecondition('the process has no terminal');
    this.#terminal.resize(size);
  }

  closeStdin(): void {
    this.#terminal?.closeStdin();
  }

  exited(): void {
    this.#terminal?.exited();
  }

  async drain(): Promise<void> {
    await this.#terminal?.drain();
  }

  close(): void {
    this.#closeEnds();
    this.#terminal?.close();
    // It ends by itself at the end of its input; one that does not is told to, and then made to.
    const signal = (name: string) => () => {
      try {
        pidfdSendSignal(this.#logger.child.pidfd, name);
      } catch (error) {
        if (!hasErrno(error, 'ESRCH')) log.warn('signalling a logger failed', { error });
      }
    };
    const timers = [setTimeout(signal('SIGTERM'), endTimeoutMs), setTimeout(signal('SIGKILL'), 2 * endTimeoutMs)];
    for (const timer of timers) timer.unref();
    void this.#ended.then(() => timers.forEach(clearTimeout));
  }

  #closeEnds(): void {
    if (this.#logger.stdout >= 0) close(this.#logger.stdout);
    if (this.#logger.stderr >= 0) close(this.#logger.stderr);
    this.#logger.stdout = this.#logger.stderr = -1;
  }
}

/** The program and arguments of a `binary://` URI: each key of the query and its first value, in order. */
export function loggerCommand(uri: string): { file: string; args: string[] } {
  const url = new URL(uri);
  const args: string[] = [];
  const seen = new Set<string>();
  for (const [key, value] of url.searchParams) {
    if (seen.has(key)) continue;
    seen.add(key);
    args.push(key, value);
  }
  return { file: decodeURIComponent(url.pathname), args };
}

async function startLogger(uri: string, context: IoContext): Promise<Logger> {
  const { file, args } = loggerCommand(uri);
  const fds = [...pipe2(), ...pipe2(), ...pipe2()] as [number, number, number, number, number, number];
  const [outRead, outWrite, errRead, errWrite, readyRead, readyWrite] = fds;
  let child: Child;
  try {
    child = spawn({
      file,
      args,
      env: { CONTAINER_ID: context.id, CONTAINER_NAMESPACE: context.namespace },
      extraFds: [outRead, errRead, readyWrite],
    });
  } catch (error) {
    for (const fd of fds) close(fd);
    throw unknown(`failed to start binary process: ${(error as Error).message}`, error);
  }
  for (const fd of [outRead, errRead, readyWrite]) close(fd);
  try {
    await readable(readyRead, { signal: AbortSignal.timeout(readyTimeoutMs) });
    readSync(readyRead, Buffer.alloc(1));
  } catch (error) {
    close(outWrite);
    close(errWrite);
    pidfdSendSignal(child.pidfd, 'SIGKILL');
    void waitExit(child, { unref: true }).catch(() => {});
    throw unknown(`failed to read from logging binary: ${(error as Error).message}`, error);
  } finally {
    close(readyRead);
  }
  return { child, stdout: outWrite, stderr: errWrite };
}
