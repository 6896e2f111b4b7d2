import type { DescriptorKind } from '@gantry/api';
import type { Stdio } from '../oci-runtime.ts';

/** How many rows and columns a terminal has. */
export interface TerminalSize {
  rows: number;
  cols: number;
}

/** Inode numbers of the anonymous pipes that a process's output goes through. */
export type PipeInodes = { stdout?: string; stderr?: string };

/**
 * The standard streams of one process, from before its runtime is called until it is deleted. Every kind (none, FIFOs, terminal,
 * loggers) has this face.
 */
export interface ProcessIo {
  /** What the runtime gets as 0, 1 and 2. Its copies here are closed by `started`. */
  readonly stdio: Stdio;
  /** A unix socket that the runtime connects to with the terminal's master, if there is a terminal. */
  readonly consoleSocket?: string;
  /** Noted on disk, so that another shim finds the pipes through the process. */
  readonly pipes: PipeInodes;
  /** The runtime has been called and did well: lets go of the process's ends and begins to move bytes. */
  started(): Promise<void>;
  /** @throws StatusError FailedPrecondition if there is no terminal */
  resize(size: TerminalSize): void;
  /** No more input than what is in the FIFO and from writers that are there. */
  closeStdin(): void;
  /** The process has ended: readers shall see the end as soon as they have read everything. */
  exited(): void;
  /** What would end with this shim and is to be given to the next one, by what it is. The descriptors stay this object's. */
  kept(): Map<DescriptorKind, number>;
  /** Resolves when the output has been handed on, or the drain time-out is over. */
  drain(): Promise<void>;
  /** Closes everything that is still open. Harmless twice. */
  close(): void;
}

/** The streams a client asked for: paths or URIs; '' is /dev/null. */
export interface StdioRequest {
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
}

/** What else decides how the streams are connected. */
export interface IoContext {
  namespace: string;
  /** Id of the container, or of the exec. */
  id: string;
  /** Owner of the pipes, when the options set one. */
  uid: number;
  gid: number;
  /** Whether the client's own FIFOs may be given to the process. */
  direct: boolean;
  /** Whether CRIU may come to freeze the process: it keeps pipes, but no FIFO of a file system that a container does not see. */
  freezable: boolean;
  /** A directory for console sockets, with a short name. */
  socketDir: string;
  /** Called when something of `kept` has been closed. */
  changed(): void;
}

/** How long Delete waits for output that is still on its way when other processes hold it open; containerd's value. */
export const drainTimeoutMs = 2000;

/** Waits for output to have been handed on, but no longer than the drain time-out. */
export async function withinDrainTime(done: Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, drainTimeoutMs);
  await Promise.race([done, promise]);
  clearTimeout(timer);
}
