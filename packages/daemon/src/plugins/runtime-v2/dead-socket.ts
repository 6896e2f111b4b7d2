import { lstatSync, unlinkSync } from 'node:fs';
import net from 'node:net';
import { socketPath } from '@gantry/rpc';

/** Removes the socket of a shim that was killed, which nobody else would. One at which somebody listens stays. */
export function removeDeadSocket(address: string): Promise<void> {
  const file = socketPath(address);
  if (!file.startsWith('/')) return Promise.resolve();
  return new Promise((resolve) => {
    const probe = net.connect({ path: file });
    probe.once('connect', () => probe.destroy());
    probe.once('error', (error: NodeJS.ErrnoException) => {
      // Without a break, lest a new shim come to the same place in between.
      if (error.code === 'ECONNREFUSED' && lstatSync(file, { throwIfNoEntry: false })?.isSocket()) unlinkSync(file);
    });
    probe.once('close', () => resolve());
  });
}
