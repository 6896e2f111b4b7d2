import { createServer, type Server } from 'node:net';
import { listenUnix } from '@gantry/rpc/unix-listener.ts';
import { log } from './log.ts';

/** What may be asked over the control socket: one JSON object a line, each answered by one. */
export interface ControlHandlers {
  /** Keep a place for a container. @returns false if the process is about to end */
  reserve(namespace: string, id: string): boolean;
  /** The `delete` action has removed this container behind our back. */
  forget(namespace: string, id: string): void;
}

interface ControlRequest {
  reserve?: { namespace: string; id: string };
  forget?: { namespace: string; id: string };
}

const lineMax = 4096;

/** Serves the control socket, which belongs to root alone. */
export async function serveControl(socketPath: string, handlers: ControlHandlers): Promise<Server> {
  const server = createServer((socket) => {
    let text = '';
    socket.on('error', () => socket.destroy());
    socket.on('data', (data) => {
      text += data.toString('utf8');
      if (text.length > lineMax) return socket.destroy();
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        socket.write(`${JSON.stringify(answer(line, handlers))}\n`);
      }
      return undefined;
    });
  });
  await listenUnix(server, socketPath, { mode: 0o600 });
  return server;
}

function answer(line: string, handlers: ControlHandlers): Record<string, string> {
  try {
    const { reserve, forget } = JSON.parse(line) as ControlRequest;
    if (reserve) return { status: handlers.reserve(reserve.namespace, reserve.id) ? 'reserved' : 'closing' };
    if (forget) {
      handlers.forget(forget.namespace, forget.id);
      return { status: 'forgotten' };
    }
    return { error: 'unknown request' };
  } catch (error) {
    log.warn('control request failed', { error });
    return { error: (error as Error).message };
  }
}
