import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { write } from './remote-command.ts';
import { SpdyConnection } from './spdy/spdy-connection.ts';
import type { SpdyStream } from './spdy/spdy-stream.ts';
import { streamCreationMs } from './spdy-command.ts';
import { WebSocketChannels } from './web-socket-channels.ts';

/** Connects one client's stream with a port of the pod, until either side has ended. */
export type Forward = (port: number, stream: Duplex) => Promise<void>;

export const portForwardProtocol = 'portforward.k8s.io';
export const webSocketPortForwardProtocols = ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io'];

interface Pair {
  data?: SpdyStream;
  error?: SpdyStream;
  timer: NodeJS.Timeout;
}

/** SPDY in the messages of a WebSocket, for clients whose proxies know only that. */
export const tunnelProtocol = `SPDY/3.1+${portForwardProtocol}`;

/** Serves a client that opens a pair of streams, data and error, for each connection that it forwards. Returns at once. */
export function spdyPortForward(socket: Duplex, head: Buffer, pod: string, forward: Forward): void {
  const pairs = new Map<string, Pair>();
  const connection = new SpdyConnection(socket, head, {
    stream(stream) {
      const type = stream.headers.get('streamtype');
      if ((type !== 'data' && type !== 'error') || portOf(stream) === undefined) return false;
      const id = requestId(stream, type);
      const pair = pairs.get(id) ?? { timer: setTimeout(() => giveUp(id), streamCreationMs) };
      if (pair[type]) return false;
      pairs.set(id, pair);
      pair[type] = stream;
      if (!pair.data || !pair.error) return true;
      clearTimeout(pair.timer);
      pairs.delete(id);
      void serve(portOf(pair.data)!, pair.data, pair.error, pod, forward);
      return true;
    },
  });
  const giveUp = (id: string): void => {
    const pair = pairs.get(id);
    pairs.delete(id);
    pair?.data?.destroy();
    pair?.error?.end(`(request=${id}) timed out waiting for streams`);
  };
  connection.signal.addEventListener('abort', () => {
    for (const { timer } of pairs.values()) clearTimeout(timer);
  });
}

async function serve(port: number, data: SpdyStream, error: SpdyStream, pod: string, forward: Forward): Promise<void> {
  error.resume();
  await Promise.all([data.open, error.open]);
  try {
    await forward(port, data);
    data.end();
  } catch (reason) {
    // Before the data stream is reset, so that the client sees why.
    await write(error, Buffer.from(failure(port, pod, reason))).catch(() => undefined);
    data.destroy();
  }
  error.end();
}

/** Serves a client whose connection has two channels for each port that the call named. */
export async function webSocketPortForward(
  socket: WebSocket,
  protocol: string,
  ports: readonly number[],
  pod: string,
  forward: Forward,
): Promise<void> {
  const channels = new WebSocketChannels(
    socket,
    { name: protocol, closes: false },
    ports.flatMap(() => [true, false]),
  );
  await Promise.all(
    ports.map(async (port, index) => {
      const [data, error] = [channels.channel(2 * index), channels.channel(2 * index + 1)];
      // The first message of each channel is the number of its port.
      const number = Buffer.alloc(2);
      number.writeUInt16LE(port);
      try {
        await Promise.all([write(data, number), write(error, number)]);
        await forward(port, data);
      } catch (reason) {
        await write(error, Buffer.from(failure(port, pod, reason))).catch(() => undefined);
      }
    }),
  );
  channels.close();
}

function failure(port: number, pod: string, reason: unknown): string {
  const message = reason instanceof Error ? reason.message : String(reason);
  return `error forwarding port ${port} to pod ${pod}, uid : ${message}`;
}

function portOf(stream: SpdyStream): number | undefined {
  const text = stream.headers.get('port') ?? '';
  const port = Number(text);
  return /^\d{1,5}$/.test(text) && port >= 1 && port <= 65535 ? port : undefined;
}

/** Old clients name no request: theirs is the pair of consecutive streams, the error stream first. */
function requestId(stream: SpdyStream, type: 'data' | 'error'): string {
  const id = stream.headers.get('requestid') ?? '';
  if (id !== '') return id;
  return String(type === 'error' ? stream.id : stream.id - 2);
}
