import type { Duplex } from 'node:stream';

/** Exec, attach and port-forward: the kubelet is given a URL, and its client speaks SPDY/3.1 or WebSocket there. */

/** Streams of a remote client, as far as it wants them. */
export interface RemoteStreams {
  terminal: boolean;
  /** Ends when the client has closed its input. */
  stdin?: AsyncIterable<Uint8Array> | undefined;
  stdout?: ((bytes: Uint8Array) => Promise<void>) | undefined;
  stderr?: ((bytes: Uint8Array) => Promise<void>) | undefined;
  /** Sizes of the client's terminal, as they change. */
  resize?: AsyncIterable<{ width: number; height: number }> | undefined;
  /** Aborted when the client goes. */
  signal: AbortSignal;
}

/** What the server has done for its clients: the daemon's side, implemented in `run/`. */
export interface StreamingRuntime {
  /** Runs a command; answers its exit code after all output has been passed on. @throws StatusError if it cannot be started */
  exec(containerId: string, command: readonly string[], streams: RemoteStreams): Promise<number>;
  /** Follows the container's own streams until it ends or the client goes. */
  attach(containerId: string, streams: RemoteStreams): Promise<void>;
  /** Connects a client's stream with a port inside of the pod, until either side has ended. */
  portForward(sandboxId: string, port: number, stream: Duplex): Promise<void>;
}

export interface ExecUrlRequest {
  containerId: string;
  command: readonly string[];
  terminal: boolean;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
}

export type AttachUrlRequest = Omit<ExecUrlRequest, 'command'>;

export interface StreamingServer {
  /** URLs with a token that is good once, for a minute. @throws ResourceExhausted while too many were not used */
  execUrl(request: ExecUrlRequest): string;
  attachUrl(request: AttachUrlRequest): string;
  portForwardUrl(request: { sandboxId: string; ports: readonly number[] }): string;
  /** Listens. */
  start(): Promise<void>;
  close(): Promise<void>;
}
