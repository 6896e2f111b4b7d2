import type { Duplex } from 'node:stream';
import { type CommandStatus, statusJson, statusText } from './command-status.ts';
import type { RemoteStreams } from './streaming-server.ts';

/** A client of exec or attach, whichever way it speaks. */
export interface RemoteCommand {
  streams: RemoteStreams;
  /** Tells how it ended, after all output, and ends the connection. */
  finish(status: CommandStatus): Promise<void>;
}

/** What the call has asked for. */
export interface WantedStreams {
  terminal: boolean;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
}

export interface CommandChannels {
  error: Duplex;
  stdin?: Duplex | undefined;
  stdout?: Duplex | undefined;
  stderr?: Duplex | undefined;
  resize?: Duplex | undefined;
}

/** A command's streams over byte channels. @param version of the protocol: from 4 on the status is JSON */
export function remoteCommand(
  channels: CommandChannels,
  wanted: WantedStreams,
  version: number,
  connection: { signal: AbortSignal; close(): void },
): RemoteCommand {
  const { error, stdin, stdout, stderr, resize } = channels;
  // What a client sends where nobody listens must not hold up the connection.
  for (const channel of [error, stdout, stderr]) channel?.resume();
  if (!wanted.terminal) resize?.resume();
  return {
    streams: {
      terminal: wanted.terminal,
      stdin: wanted.stdin && stdin ? bytesOf(stdin) : undefined,
      stdout: wanted.stdout && stdout ? (bytes) => write(stdout, bytes) : undefined,
      stderr: wanted.stderr && stderr ? (bytes) => write(stderr, bytes) : undefined,
      resize: wanted.terminal && resize ? sizesOf(resize) : undefined,
      signal: connection.signal,
    },
    async finish(status) {
      try {
        await Promise.all([stdout, stderr].map((channel) => channel && end(channel)));
        const text = version >= 4 ? statusJson(status) : statusText(status);
        if (text !== '') await write(error, Buffer.from(text));
        await end(error);
      } catch {
        // The client has gone.
      }
      connection.close();
    },
  };
}

export function write(stream: Duplex, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

function end(stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    stream.once('close', resolve);
    stream.end(() => resolve());
  });
}

/** What comes until the client ends it; also until it goes, which is no error here. */
async function* bytesOf(stream: Duplex): AsyncIterable<Uint8Array> {
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch {
    // Cut off with the connection.
  }
}

const largestSize = 4096;

/** Sizes of a terminal: JSON objects, one after the other, split in any way. */
async function* sizesOf(stream: Duplex): AsyncIterable<{ width: number; height: number }> {
  let text = '';
  for await (const chunk of bytesOf(stream)) {
    text += Buffer.from(chunk).toString('latin1');
    for (;;) {
      const close = text.indexOf('}');
      if (close < 0) break;
      const size = readSize(text.slice(0, close + 1));
      text = text.slice(close + 1);
      if (size) yield size;
    }
    if (text.length > largestSize) return;
  }
}

function readSize(text: string): { width: number; height: number } | undefined {
  try {
    const { Width: width, Height: height } = JSON.parse(text) as { Width?: unknown; Height?: unknown };
    const good = (value: unknown): value is number =>
      Number.isInteger(value) && Number(value) >= 0 && Number(value) < 65536;
    return good(width) && good(height) ? { width, height } : undefined;
  } catch {
    return undefined;
  }
}
