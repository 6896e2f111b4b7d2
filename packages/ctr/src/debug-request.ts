// Asking a daemon or shim what it does: HTTP over its debug socket.
import http, { type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';

/**
 * Asks the first of some sockets that somebody listens at.
 * @returns the body of the answer, to be read as it comes
 * @throws Error if nobody listens, or with what was answered if that is a refusal
 */
export async function debugRequest(sockets: readonly string[], path: string): Promise<IncomingMessage> {
  let last: Error | undefined;
  for (const socketPath of sockets) {
    let response: IncomingMessage;
    try {
      response = await get(socketPath, path);
    } catch (reason) {
      last = reason as Error;
      if (!['ENOENT', 'ECONNREFUSED'].includes((reason as NodeJS.ErrnoException).code ?? '')) break;
      continue;
    }
    if (response.statusCode === 200) return response;
    throw new Error(`${path}: ${response.statusCode} ${response.statusMessage}: ${(await text(response)).trim()}`);
  }
  const shown = sockets.map((socket) => socket.replace('\0', '@')).join(' ');
  throw new Error(`no debug socket answers at [${shown}]${last ? `: ${last.message}` : ''}`);
}

function get(socketPath: string, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    http.get({ socketPath, path, host: 'debug', agent: false }, resolve).on('error', reject);
  });
}
