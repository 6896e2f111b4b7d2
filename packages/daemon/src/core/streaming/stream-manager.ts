import type { MessageStream } from '@gantry/rpc/message-stream.ts';
import type { RequestContext } from '../request-context.ts';

export type { MessageStream };

/** Finds the streams that other requests refer to by name. Each namespace has its own names. */
export interface StreamManager {
  /** @throws AlreadyExists */
  register(ctx: RequestContext, name: string, stream: MessageStream): void;
  /** @throws NotFound */
  get(ctx: RequestContext, name: string): MessageStream;
}
