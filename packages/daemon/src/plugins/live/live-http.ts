// What the live page's server answers: the page, its two files, the state as JSON, and the state as it changes. To reads only, and
// only to those who ask for this machine by its own name.
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import path from 'node:path';
import type { PluginContext } from '../../core/plugin/plugin.ts';
import { LiveFeed } from './live-feed.ts';
import { liveSources } from './live-sources.ts';
import { isLoopbackHost } from './loopback.ts';

/** Beside this module; in the bundle, where every module has become one file, in a folder of the page's name. */
const folder = path.join(import.meta.dirname, import.meta.url.endsWith('.ts') ? 'page' : 'live-page');

const files: Readonly<Record<string, readonly [file: string, type: string]>> = {
  '/': ['page.html', 'text/html; charset=utf-8'],
  '/page.css': ['page.css', 'text/css; charset=utf-8'],
  '/page.js': ['page.js', 'text/javascript; charset=utf-8'],
};

/** Nothing but our own files may be loaded, run or asked, and nobody may frame the page. */
const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'cache-control': 'no-store',
};

/** Who looks at once; more are somebody's mistake. */
const viewersMax = 32;

/** Why a request is not answered, if it is not. */
function refusal({ headers: asked, method }: IncomingMessage): readonly [status: number, reason: string] | undefined {
  if (!isLoopbackHost(asked.host)) return [421, 'this page is served to localhost only'];
  const site = asked['sec-fetch-site'];
  // A link that leads here is followed; what another site's page loads or asks is not.
  if (site !== undefined && site !== 'same-origin' && site !== 'none' && asked['sec-fetch-mode'] !== 'navigate')
    return [403, 'not for pages of other sites'];
  if (method !== 'GET' && method !== 'HEAD') return [405, 'this page is for reading only'];
  return undefined;
}

export function liveListener(
  context: PluginContext<unknown>,
  intervalMs: number,
): { listen: RequestListener; close(): void } {
  const feed = new LiveFeed(liveSources(context), intervalMs, context.log);
  const listen: RequestListener = async (request, response) => {
    try {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      const refused = refusal(request);
      if (refused) return plainText(response, ...refused);
      const [pathname = ''] = (request.url ?? '').split('?');
      if (pathname === '/events') return stream(feed, request, response);
      if (pathname === '/state') {
        response.setHeader('content-type', 'application/json');
        return void response.end(request.method === 'HEAD' ? '' : `${JSON.stringify(await feed.snapshot())}\n`);
      }
      const file = Object.hasOwn(files, pathname) ? files[pathname] : undefined;
      if (!file) return plainText(response, 404, 'not found');
      const bytes = await readFile(path.join(folder, file[0]));
      response.setHeader('content-type', file[1]);
      response.setHeader('content-length', bytes.length);
      return void response.end(request.method === 'HEAD' ? '' : bytes);
    } catch (error) {
      context.log.warn('live page', { error, url: request.url });
      if (response.headersSent) return void response.destroy();
      return plainText(response, 500, 'this did not work; the log says why');
    }
  };
  return { listen, close: () => feed.close() };
}

function plainText(response: ServerResponse, status: number, text: string): void {
  response.statusCode = status;
  if (status === 405) response.setHeader('allow', 'GET, HEAD');
  response.setHeader('content-type', 'text/plain; charset=utf-8');
  response.end(`${text}\n`);
}

/** Server-sent events: one for each part of the state that has changed. A viewer that does not keep up gets the newest later. */
function stream(feed: LiveFeed, request: IncomingMessage, response: ServerResponse): void {
  if (feed.viewers >= viewersMax) {
    plainText(response, 503, 'too many look at once');
    return;
  }
  response.setHeader('content-type', 'text/event-stream');
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  response.flushHeaders();
  const leave = feed.join({
    send: (name, json) => response.write(`event: ${name}\ndata: ${json}\n\n`),
    // Not "has it taken all": a page in the background is served when it comes back.
    ready: () => response.writableLength < 1 << 20,
    end: () => response.end(),
  });
  response.on('close', leave);
}
