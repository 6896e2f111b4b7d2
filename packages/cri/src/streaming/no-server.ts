import { unimplemented } from '@gantry/api';
import type { StreamingServer } from './streaming-server.ts';

const missing = (): never => {
  throw unimplemented('the streaming server is not built yet: not implemented');
};

/** Stands where the streaming server will be. */
export const noStreaming: StreamingServer = {
  execUrl: missing,
  attachUrl: missing,
  portForwardUrl: missing,
  start: async () => undefined,
  close: async () => undefined,
};
