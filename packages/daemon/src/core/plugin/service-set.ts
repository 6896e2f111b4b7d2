import type { ServiceRegistrar } from '@gantry/rpc';

/** What a `grpc.v1` plugin serves. `register` goes on the main socket (and TCP), `registerTtrpc` on the socket for shims. */
export interface ServiceSet {
  register?(grpc: ServiceRegistrar): void;
  /** Not on TCP, whoever is let in there. */
  unixOnly?: boolean;
  registerTtrpc?(ttrpc: ServiceRegistrar): void;
}
