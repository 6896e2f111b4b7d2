import type { Any } from '@bufbuild/protobuf/wkt';
import type { RequestContext } from '../request-context.ts';

/** A client's named two-way stream of messages, open for as long as both sides keep it. */
export interface MessageStream {
  /** Queues a message; does not wait for the client. Silently dropped once the stream has ended. */
  send(message: Any): void;
  /** The next message; undefined when the client has sent its last. @throws Canceled if the connection broke. */
  receive(): Promise<Any | undefined>;
  /** Ends the stream from this side, after what is queued, and frees its name. */
  close(): void;
  /** Settles when the stream has ended, whoever ended it. */
  readonly closed: Promise<void>;
}

/** Finds the streams that other requests refer to by name. Each namespace has its own names. */
export interface StreamManager {
  /** @throws AlreadyExists */
  register(ctx: RequestContext, name: string, stream: MessageStream): void;
  /** @throws NotFound */
  get(ctx: RequestContext, name: string): MessageStream;
}
