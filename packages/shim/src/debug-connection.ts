import { readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { callsInFlight, formatCall } from '@gantry/rpc/calls-in-flight.ts';
import { debugListener } from '@gantry/sys/debug/debug-http.ts';

/**
 * Serves HTTP on connections that somebody else took: what gantryd's debug socket answers, of this process. Loaded when it is asked for the
 * first time only, because a shim should stay small.
 */
export function debugConnections(variables: () => Record<string, unknown>): (socket: Socket) => void {
  const server = createServer(
    debugListener({
      variables: () => ({
        pid: process.pid,
        uptime: process.uptime(),
        memory: process.memoryUsage(),
        descriptors: readdirSync('/proc/self/fd').length,
        calls: callsInFlight(),
        ...variables(),
      }),
      activities: () => callsInFlight().map(formatCall),
    }),
  );
  return (socket) => {
    server.emit('connection', socket);
    socket.resume();
  };
}
