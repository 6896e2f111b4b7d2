// Where a unix socket comes from: our own bind, or a service manager that bound it before we started.
import { rmSync } from 'node:fs';
import type { UnixAddress } from '@gantry/rpc';
import { takeActivatedSockets } from '../service-manager.ts';

let activated: Map<string, number> | undefined;

/** The descriptor that a service manager opened for this path, else the path. */
export function unixAddressOf(path: string): UnixAddress {
  activated ??= takeActivatedSockets();
  const fd = activated.get(path);
  return fd === undefined ? path : { fd };
}

/** Removes a socket's file after its server closed, unless it belongs to the service manager. */
export function removeSocket(path: string): void {
  if (!activated?.has(path) && path.startsWith('/')) rmSync(path, { force: true });
}
