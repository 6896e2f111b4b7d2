import type { TtrpcServer } from '@gantry/rpc';
import type { Logger } from '../../core/log/logger.ts';
import { removeSocket } from './unix-socket.ts';

/** Another daemon's ttrpc sockets, served for the shims that were taken over from it: they know no other. */
export class TakenSockets {
  readonly #newServer: () => TtrpcServer;
  readonly #log: Logger;
  readonly #servers = new Map<string, TtrpcServer>();

  constructor(newServer: () => TtrpcServer, log: Logger) {
    this.#newServer = newServer;
    this.#log = log;
  }

  /** One at which somebody else listens, or that cannot be made, is a warning: tasks work without their shims' events. */
  async listen(addresses: Iterable<string>): Promise<void> {
    for (const address of addresses) {
      const server = this.#newServer();
      try {
        await server.listenUnix(address);
        this.#servers.set(address, server);
        this.#log.info('serving shims that were taken over', { address });
      } catch (error) {
        this.#log.warn('events of shims that were taken over will be missed', { address, error });
      }
    }
  }

  /** Closes those that no shim uses any more. */
  keep(addresses: ReadonlySet<string>): void {
    for (const address of this.#servers.keys()) {
      if (addresses.has(address)) continue;
      this.#end(address).catch((error) => this.#log.warn('cannot close a socket', { address, error }));
    }
  }

  async close(): Promise<void> {
    for (const address of [...this.#servers.keys()]) await this.#end(address);
  }

  async #end(address: string): Promise<void> {
    const server = this.#servers.get(address);
    this.#servers.delete(address);
    // A shim that is ending may be telling of it.
    await server?.close(1000);
    removeSocket(address);
  }
}
