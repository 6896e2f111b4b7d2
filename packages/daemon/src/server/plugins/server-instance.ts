import type { LogFields } from '../../core/log/logger.ts';

/** What a plugin of type `io.containerd.server.v1` gives. The daemon starts servers when every plugin has been tried. */
export interface ServerInstance {
  /** Opens the socket. */
  start(): Promise<void>;
  /** For the dump of state: what is being served. */
  describe?(): LogFields;
}

export function isServerInstance(value: unknown): value is ServerInstance {
  return typeof (value as ServerInstance | undefined)?.start === 'function';
}
