import type { WebSocket } from 'ws';
import { type RemoteCommand, remoteCommand, type WantedStreams } from './remote-command.ts';
import { protocolVersion } from './spdy-command.ts';
import { WebSocketChannels } from './web-socket-channels.ts';

/** Versions of the exec and attach protocol over WebSocket. */
export const webSocketCommandProtocols = [
  'v5.channel.k8s.io',
  'v4.channel.k8s.io',
  'v4.base64.channel.k8s.io',
  'channel.k8s.io',
  'base64.channel.k8s.io',
];

const Channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 };

export function webSocketCommand(socket: WebSocket, protocol: string, wanted: WantedStreams): RemoteCommand {
  const version = protocolVersion(protocol);
  const channels = new WebSocketChannels(socket, { name: protocol, closes: version >= 5 }, [
    wanted.stdin,
    false,
    false,
    false,
    true,
  ]);
  // An empty message says that the connection stands.
  const first = wanted.stdout ? Channel.stdout : wanted.stderr ? Channel.stderr : Channel.error;
  channels.send(first, Buffer.alloc(0), () => undefined);
  return remoteCommand(
    {
      error: channels.channel(Channel.error),
      stdin: channels.channel(Channel.stdin),
      stdout: channels.channel(Channel.stdout),
      stderr: channels.channel(Channel.stderr),
      resize: channels.channel(Channel.resize),
    },
    wanted,
    version,
    channels,
  );
}
