import { readSync } from 'node:fs';
import { type DescriptorKind, failedPrecondition, unknown } from '@gantry/api';
import { type Child, close, hasErrno, pidfdSendSignal, pipe2, readable, spawn, waitExit } from '@gantry/sys';
import { log } from '../log.ts';
import type { Stdio } from '../oci-runtime.ts';
import type { IoContext, ProcessIo, StdioRequest, TerminalSize } from './process-io.ts';
import { TerminalIo } from './terminal-io.ts';

/** How long a logger may take to say that it is ready, to end after its input did, and after it was told to. */
const readyTimeoutMs = 10_000;
const endTimeoutMs = 10_000;
const killTimeoutMs = 2_000;

/** A running logging program and the writing ends of its two pipes. */
interface Logger {
  child: Child;
  stdout: number;
  stderr: number;
}

/** Whether a stream's address is that of a logging program. */
export function isLogger(address: string): boolean {
  return address.startsWith('binary://') || address.startsWith('binary-v2://');
}

/**
 * `binary://` loggers, by containerd's contract: the program gets the streams' reading ends as descriptors 3 and 4, says that it is
 * ready by closing descriptor 5, learns the container from CONTAINER_ID and CONTAINER_NAMESPACE, and ends when its input does. Of a
 * `binary-v2://` logger a byte is wanted there first, so that one that has just died is not taken for one that is ready.
 */
export class LoggerIo implements ProcessIo {
  readonly stdio: Stdio;
  readonly pipes = {};
  readonly consoleSocket?: string;
  readonly #logger: Logger;
  readonly #ended: Promise<unknown>;
  readonly #terminal: TerminalIo | undefined;
  #closed = false;

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

  /** Without a terminal the process and its logger have their pipe to themselves. */
  kept(): Map<DescriptorKind, number> {
    return this.#terminal?.kept() ?? new Map();
  }

  /** The log is whole when its program has ended, which it does by itself when its input does. */
  async drain(): Promise<void> {
    await this.#terminal?.drain();
    this.#terminal?.close();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, endTimeoutMs);
    await Promise.race([this.#ended, promise]);
    clearTimeout(timer);
  }

  close(): void {
    this.#closeEnds();
    this.#terminal?.close();
    // One that has not ended by now is told to, and then made to.
    const signal = (name: string) => () => {
      try {
        pidfdSendSignal(this.#logger.child.pidfd, name);
      } catch (error) {
        if (!hasErrno(error, 'ESRCH')) log.warn('signalling a logger failed', { error });
      }
    };
    if (this.#closed) return;
    this.#closed = true;
    const told = setTimeout(signal('SIGTERM'), 0);
    const made = setTimeout(signal('SIGKILL'), killTimeoutMs);
    made.unref();
    void this.#ended.then(() => [told, made].forEach(clearTimeout));
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
    const reason = hasErrno(error, 'ENOENT') ? 'no such file or directory' : (error as Error).message;
    throw unknown(`failed to start binary process: fork/exec ${file}: ${reason}`, error);
  }
  for (const fd of [outRead, errRead, readyWrite]) close(fd);
  try {
    await readable(readyRead, { signal: AbortSignal.timeout(readyTimeoutMs) });
    const said = readSync(readyRead, Buffer.alloc(1));
    if (said === 0 && uri.startsWith('binary-v2:'))
      throw new Error('logging binary did not call ready (it may have crashed or exited prematurely)');
  } catch (error) {
    close(outWrite);
    close(errWrite);
    try {
      pidfdSendSignal(child.pidfd, 'SIGKILL');
    } catch {
      // It has ended already.
    }
    void waitExit(child, { unref: true }).catch(() => {});
    const { message } = error as Error;
    throw unknown(
      message.startsWith('logging binary') ? message : `failed to read from logging binary: ${message}`,
      error,
    );
  } finally {
    close(readyRead);
  }
  return { child, stdout: outWrite, stderr: errWrite };
}
