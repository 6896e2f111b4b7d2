import net from 'node:net';
import { unavailable } from '@gantry/api';
import { socketPath } from '@gantry/rpc';
import { peerCredentials } from '@gantry/sys';

/** The process that listens at a unix socket, even if it does nothing else. @throws if nobody does */
export function listenerAt(address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = net.connect({ path: socketPath(address) });
    probe.once('error', reject);
    probe.once('connect', () => {
      try {
        // Node has no other way to its number.
        const { fd } = (probe as unknown as { _handle: { fd: number } })._handle;
        const { pid } = peerCredentials(fd);
        if (pid > 0) resolve(pid);
        // In a pid namespace that this one does not see.
        else reject(unavailable(`the process at ${address} cannot be told`));
      } catch (error) {
        reject(error);
      } finally {
        probe.destroy();
      }
    });
  });
}
