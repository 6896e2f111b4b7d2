/** Output of containers: to their logs in CRI's format, and to whoever is attached. This file is the seam. */

export interface ContainerLogOptions {
  containerId: string;
  /** FIFOs that exist already; '' for a stream that is not there (a terminal has no stderr). */
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
  /** stdin is closed once the first who attaches has left. */
  stdinOnce: boolean;
  /** '' for none: output is read and dropped. */
  logPath: string;
  /** Bytes after which a line goes on in a further, partial one; 0 or less: 16 MiB. */
  maxLineSize: number;
  /** Where is kept what has been read and is not in the log yet. Removed with the last of it, or by `close`. */
  stateDirectory: string;
}

/** A container that an earlier daemon has started. */
export interface EarlierOutput {
  /** It has ended, and nothing will be written to its FIFOs any more. */
  exited: boolean;
}

export type OutputName = 'stdout' | 'stderr';

/** The input and output of one container, until it has ended and all is written. */
export interface ContainerIo {
  /** The process has been started, and holds its ends. Not called for one that is resumed. */
  started(): void;
  /** The process has ended, or will never be: from now on an end of output is one. */
  exited(): void;
  /** Closes the log and opens its path anew, after a rotation. */
  reopen(): Promise<void>;
  /** Gets all output from now on; the function returned ends that. `onEnd` is called when there will be no more. */
  follow(onOutput: (name: OutputName, bytes: Uint8Array) => void, onEnd: () => void): () => void;
  /** Writes to the container's stdin; waits while it does not read. */
  writeStdin(bytes: Uint8Array): Promise<void>;
  closeStdin(): void;
  /** Settles when output has ended after `exited` and all of it is in the log; also when it is closed. */
  readonly drained: Promise<void>;
  /** Lets go of everything, whatever has not been read or written. Safe to call twice. */
  close(): Promise<void>;
}

export interface ContainerLogs {
  /**
   * Begins to copy. With `earlier` it goes on where an earlier daemon was, wherever that was stopped.
   * @throws StatusError if the log cannot be opened
   */
  open(options: ContainerLogOptions, earlier?: EarlierOutput): Promise<ContainerIo>;
  /** The daemon ends: what is not in the logs is left to the next one. */
  close(): Promise<void>;
}
