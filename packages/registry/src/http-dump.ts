import { STATUS_CODES } from 'node:http';
import { safeUrl } from './http-error.ts';
import type { HttpRequest } from './http-transport.ts';

/** What requests and answers looked like, in HTTP/1.1's own form, without bodies and without what is secret or may be. */

/** Of those that we send; any other may have come from a configuration, and be a secret. */
const shownRequestHeaders = new Set([
  'accept',
  'accept-encoding',
  'content-length',
  'content-range',
  'content-type',
  'if-range',
  'range',
  'user-agent',
]);

const hiddenAnswerHeaders = new Set(['set-cookie', 'authorization', 'proxy-authorization']);

type Headers = Record<string, string | string[] | undefined>;

function lines(headers: Headers, show: (name: string, value: string) => string): string {
  let text = '';
  for (const [name, values = []] of Object.entries(headers)) {
    for (const value of [values].flat()) text += `${name}: ${show(name.toLowerCase(), value)}\n`;
  }
  return text;
}

export function dumpRequest({ method, url, headers }: HttpRequest): string {
  const { host, pathname, search } = new URL(safeUrl(url));
  const shown = lines(headers, (name, value) => (shownRequestHeaders.has(name) ? value : 'REDACTED'));
  return `${method} ${pathname}${search} HTTP/1.1\nhost: ${host}\n${shown}\n`;
}

export function dumpAnswer(status: number, headers: Headers, base: URL): string {
  const shown = lines(headers, (name, value) => {
    if (hiddenAnswerHeaders.has(name)) return 'REDACTED';
    // Storage behind registries is reached by URLs that are signed.
    return name === 'location' ? safeUrl(new URL(value, base)) : value;
  });
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\n${shown}\n`;
}
