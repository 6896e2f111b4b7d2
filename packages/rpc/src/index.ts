// Everything. A process that must stay small imports `@gantry/rpc/ttrpc-server.ts` and the like instead.
export { BufferPool } from './buffer-pool.ts';
export { type CallInFlight, callsInFlight, formatCall } from './calls-in-flight.ts';
export * from './client.ts';
export { encodedMessage } from './encoded-message.ts';
export * from './grpc-client.ts';
export * from './grpc-server.ts';
export * from './headers.ts';
export * from './message-queue.ts';
export { Multiplexer } from './multiplexer.ts';
export type { CallReport, InterceptedCall, Interceptor, MethodKind, RpcLogger, ServerOptions } from './server-call.ts';
export * from './service.ts';
export { traceServerCalls } from './trace-calls.ts';
export * from './ttrpc-client.ts';
export * from './ttrpc-server.ts';
export { listenUnix, type SocketPermissions, socketPath, type UnixAddress } from './unix-listener.ts';
