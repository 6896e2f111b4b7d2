import type { ContainerLogOptions, OutputName } from './container-logs.ts';

/** What the main thread and the log worker say to each other. `id` names one container's io among those that are open. */

/** These are answered. */
export type LogCall =
  | { do: 'open'; id: number; options: ContainerLogOptions; state: LogState }
  | { do: 'reopen'; id: number }
  /** With `keep` what is not in the log yet is left to the next daemon. */
  | { do: 'close'; id: number; keep: boolean };

/** These are not. */
export type LogNews =
  | { do: 'started'; id: number }
  | { do: 'exited'; id: number }
  | { do: 'follow'; id: number; on: boolean }
  /** So many bytes of output have been passed on. */
  | { do: 'ack'; id: number; bytes: number };

export type LogRequest =
  | (LogCall & { call: number })
  | LogNews
  /** Closes all, and keeps. */
  | { do: 'stop' };

/** What a worker has to know of a container that another one, or another daemon's, had. */
export interface LogState {
  /** An earlier one has begun with it. */
  resume: boolean;
  started: boolean;
  exited: boolean;
  follow: boolean;
}

export type LogReport =
  | { to: number }
  | { to: number; error: { code: number; message: string } }
  | { id: number; output: OutputName; bytes: Uint8Array }
  /** No more output will come; it may not be in the log yet. */
  | { id: number; say: 'ended' }
  /** All is in the log. */
  | { id: number; say: 'drained' }
  /** The log cannot be written, and output waits; or it can again. */
  | { id: number; say: 'blocked'; reason: string }
  | { id: number; say: 'unblocked' };
