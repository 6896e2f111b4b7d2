import { createServer, type Server, type Socket } from 'node:net';
import { listenUnix } from '@gantry/rpc/unix-listener.ts';
import { log } from './log.ts';

/** What may be asked over the control socket: one JSON object a line, each answered by one; or, in HTTP, what the process does. */
export interface ControlHandlers {
  /** Keep a place for a container. @returns false if the process is about to end */
  reserve(namespace: string, id: string): boolean;
  /** The `delete` action has removed this container behind our back. */
  forget(namespace: string, id: string): void;
  /** End a container of which nothing is left but what this process knows. @returns false if it is not here */
  remove(namespace: string, id: string): Promise<boolean>;
  /** What /debug/vars shows beside the process's own numbers. */
  variables(): Record<string, unknown>;
}

interface ControlRequest {
  reserve?: { namespace: string; id: string };
  forget?: { namespace: string; id: string };
  remove?: { namespace: string; id: string };
}

const lineMax = 4096;

/** Serves the control socket, which belongs to root alone. */
export async function serveControl(socketPath: string, handlers: ControlHandlers): Promise<Server> {
  let debug: Promise<(socket: Socket) => void> | undefined;
  const server = createServer((socket) => {
    let text = '';
    socket.on('error', () => socket.destroy());
    const receive = (data: Buffer): unknown => {
      if (text === '' && isHttp(data)) {
        socket.off('data', receive);
        socket.pause();
        socket.unshift(data);
        debug ??= import('./debug-connection.ts').then(({ debugConnections }) => debugConnections(handlers.variables));
        return debug.then((take) => take(socket)).catch(() => socket.destroy());
      }
      text += data.toString('utf8');
      if (text.length > lineMax) return socket.destroy();
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        void answer(line, handlers).then((said) => socket.write(`${JSON.stringify(said)}\n`));
      }
      return undefined;
    };
    socket.on('data', receive);
  });
  await listenUnix(server, socketPath, { mode: 0o600 });
  return server;
}

/** Requests of our own begin with a brace, those of HTTP with a method's name. */
function isHttp(data: Buffer): boolean {
  return data[0] !== undefined && data[0] >= 0x41 && data[0] <= 0x5a;
}

async function answer(line: string, handlers: ControlHandlers): Promise<Record<string, string>> {
  try {
    const { reserve, forget, remove } = JSON.parse(line) as ControlRequest;
    if (reserve) return { status: handlers.reserve(reserve.namespace, reserve.id) ? 'reserved' : 'closing' };
    if (forget) {
      handlers.forget(forget.namespace, forget.id);
      return { status: 'forgotten' };
    }
    if (remove) return { status: (await handlers.remove(remove.namespace, remove.id)) ? 'removed' : 'unknown' };
    return { error: 'unknown request' };
  } catch (error) {
    log.warn('control request failed', { error });
    return { error: (error as Error).message };
  }
}
