import type { Header } from './hpack-decoder.ts';

/** The headers of a request, in their order; those whose names begin with a colon are told by `method` and `path`. */
export class RequestHeaders {
  readonly method: string;
  readonly path: string;
  readonly entries: readonly Header[];

  constructor(method: string, path: string, entries: readonly Header[]) {
    this.method = method;
    this.path = path;
    this.entries = entries;
  }

  /** The first of that name. */
  get(name: string): string | undefined {
    for (const entry of this.entries) if (entry[0] === name) return entry[1];
    return undefined;
  }
}

/** What is the connection's affair, which HTTP/2 does not send. */
const ofConnection = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']);

/** undefined if they are none that a request may have (RFC 9113, 8.2 and 8.3). */
export function requestHeaders(headers: readonly Header[]): RequestHeaders | undefined {
  let method: string | undefined;
  let path: string | undefined;
  let scheme: string | undefined;
  let authority: string | undefined;
  let index = 0;
  for (; index < headers.length; index++) {
    const [name, value] = headers[index]!;
    if (name.charCodeAt(0) !== colon) break;
    if (name === ':method' && method === undefined) method = value;
    else if (name === ':path' && path === undefined) path = value;
    else if (name === ':scheme' && scheme === undefined) scheme = value;
    else if (name === ':authority' && authority === undefined) authority = value;
    else return undefined;
  }
  if (!method || !path || !scheme) return undefined;
  const entries = headers.slice(index);
  return areOrdinary(entries) ? new RequestHeaders(method, path, entries) : undefined;
}

const colon = 0x3a;

/** Whether all may stand after the pseudo-headers, and in trailers. */
export function areOrdinary(headers: readonly Header[]): boolean {
  for (const [name, value] of headers) {
    if (name === 'te' ? value !== 'trailers' : ofConnection.has(name)) return false;
    if (name === '') return false;
    for (let at = 0; at < name.length; at++) {
      const char = name.charCodeAt(at);
      if (char <= 0x20 || char >= 0x7f || char === colon || (char >= 0x41 && char <= 0x5a)) return false;
    }
  }
  return true;
}
