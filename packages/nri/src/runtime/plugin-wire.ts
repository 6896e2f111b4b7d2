import type { Duplex } from 'node:stream';
import { Runtime as RuntimeService } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { type Implementation, Multiplexer, type Transport, TtrpcServer, ttrpcTransport } from '@gantry/rpc';
import { PluginConnection, RuntimeConnection } from '../connection-numbers.ts';
import { largestChunk } from './synchronize.ts';

/** How a plugin is reached. */
export interface PluginWire {
  /** Calls of the plugin's service. */
  readonly transport: Transport;
  /** Whether it says who it is before anything is asked of it. */
  readonly registers: boolean;
  /** How many bytes one request may have. */
  readonly largestRequest: number;
  /** Answers what the plugin asks by itself. */
  serve(runtime: Implementation<typeof RuntimeService>): void;
  /** Calls back when it cannot be reached any more. */
  onClose(listener: () => void): void;
  close(): void;
}

/** A plugin that is a process, by a socket: two connections of ttrpc over one. */
export function socketWire(trunk: Duplex): PluginWire {
  const multiplexer = new Multiplexer(trunk);
  const transport = ttrpcTransport(multiplexer.open(PluginConnection));
  return {
    transport,
    registers: true,
    largestRequest: largestChunk,
    serve(runtime) {
      const server = new TtrpcServer();
      server.add(RuntimeService, runtime);
      server.serveConnection(multiplexer.open(RuntimeConnection));
    },
    onClose: (listener) => transport.onClose(listener),
    close: () => multiplexer.close(),
  };
}
