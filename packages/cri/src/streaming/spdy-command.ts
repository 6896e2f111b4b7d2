import type { Duplex } from 'node:stream';
import { type CommandChannels, type RemoteCommand, remoteCommand, type WantedStreams } from './remote-command.ts';
import { SpdyConnection } from './spdy/spdy-connection.ts';
import type { SpdyStream } from './spdy/spdy-stream.ts';

/** How long a client may take to open its streams, milliseconds. */
export const streamCreationMs = 30_000;

/** Versions of the exec and attach protocol over SPDY, the newest first; the last is for those that ask for none. */
export const commandProtocols = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io'];

export function protocolVersion(protocol: string): number {
  return Number(/^v(\d+)\./.exec(protocol)?.[1] ?? 1);
}

/** Waits until the client has opened the streams that it has to. @throws Error when it does not */
export async function spdyCommand(
  socket: Duplex,
  head: Buffer,
  protocol: string,
  wanted: WantedStreams,
): Promise<RemoteCommand> {
  const version = protocolVersion(protocol);
  const channels: Partial<Record<string, SpdyStream>> = {};
  const names = ['error'];
  for (const name of ['stdin', 'stdout', 'stderr'] as const) if (wanted[name]) names.push(name);
  // A terminal's size came with version 3; clients without a terminal open none.
  if (wanted.terminal && version >= 3) names.push('resize');
  const complete = Promise.withResolvers<void>();
  const connection = new SpdyConnection(socket, head, {
    stream(stream) {
      const name = stream.headers.get('streamtype') ?? '';
      if (!names.includes(name) || channels[name]) return false;
      channels[name] = stream;
      if (names.every((one) => channels[one])) complete.resolve();
      return true;
    },
  });
  const late = setTimeout(
    () => complete.reject(new Error('timed out waiting for client to create streams')),
    streamCreationMs,
  );
  const gone = (): void => complete.reject(new Error('the client went before it had created its streams'));
  connection.signal.addEventListener('abort', gone, { once: true });
  try {
    await complete.promise;
    await Promise.all(Object.values(channels).map((stream) => stream!.open));
  } catch (reason) {
    connection.destroy();
    throw reason;
  } finally {
    clearTimeout(late);
    connection.signal.removeEventListener('abort', gone);
  }
  return remoteCommand(channels as unknown as CommandChannels, wanted, version, connection);
}
