// Asking a daemon or shim what it does: HTTP over its debug socket.
import { existsSync } from 'node:fs';
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
      response = await get(await answering(socketPath), path);
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

/** How long a process may take to show that it answers at all. */
const patienceMs = 2000;

/** The socket itself; or, where the process's main thread does not answer, that of the thread that watches it. */
async function answering(socketPath: string): Promise<string> {
  // The daemon's is named after its debug socket, a shim's has another last letter.
  const watch = [`${socketPath}.watch`, socketPath.replace(/\.c$/, '.w')].find(
    (one) => one !== socketPath && existsSync(one),
  );
  if (watch === undefined) return socketPath;
  const answers = await new Promise<boolean>((resolve) => {
    const options = { socketPath, path: '/debug/pprof/', host: 'debug', agent: false as const, timeout: patienceMs };
    const request = http.get(options, (response) => {
      response.resume();
      resolve(true);
    });
    request.on('error', () => resolve(true));
    request.on('timeout', () => {
      resolve(false);
      request.destroy();
    });
  });
  if (answers) return socketPath;
  process.stderr.write('ctr: the main thread does not answer; asking the thread that watches it\n');
  return watch;
}

function get(socketPath: string, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    http.get({ socketPath, path, host: 'debug', agent: false }, resolve).on('error', reject);
  });
}
