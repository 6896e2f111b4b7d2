// A transport seen from inside a namespace and, maybe, under a lease.
import type { DescMethod } from '@bufbuild/protobuf';
import type { CallOptions, Transport } from '@gantry/rpc';

/** What calls have unless they say otherwise. */
export interface Scope {
  readonly namespace: string;
  readonly lease?: string;
}

/** The same connection with the defaults of a scope. Closing it closes the connection. */
export function scoped(transport: Transport, scope: Scope): Transport {
  const withDefaults = (options: CallOptions): CallOptions => ({
    ...options,
    namespace: options.namespace ?? scope.namespace,
    ...((options.lease ?? scope.lease) === undefined ? {} : { lease: options.lease ?? scope.lease }),
  });
  return {
    unary: (method: DescMethod, request, options) => transport.unary(method, request, withDefaults(options)),
    stream: (method: DescMethod, requests, options) => transport.stream(method, requests, withDefaults(options)),
    close: () => transport.close(),
  };
}
