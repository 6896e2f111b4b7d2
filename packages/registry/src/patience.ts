import { setTimeout as sleep } from 'node:timers/promises';
import { Code, hasCode } from '@gantry/api';
import { UnexpectedStatusError } from './http-error.ts';
import { discard, type HttpResponse, header } from './http-transport.ts';
import { codeOf } from './transport-failure.ts';

/** Asking again: after 408, 429, 5xx and broken connections, with growing pauses or those that the server asks for. */

const maxAttempts = 5;
/** A server that wants us to wait longer is not waited for. */
const maxRetryAfter = 60_000;

/** Errors after which all the tries there are have been made. */
const exhausted = new WeakSet<Error>();

const worthRepeating = (status: number): boolean =>
  status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505);

/** Sends until there is an answer that time would not change, or five times. @throws what the last try threw. */
export async function patiently(
  send: () => Promise<HttpResponse>,
  signal: AbortSignal | undefined,
): Promise<HttpResponse> {
  for (let attempt = 1; ; attempt++) {
    const last = attempt === maxAttempts;
    try {
      const response = await send();
      if (last || !worthRepeating(response.status)) return response;
      const wait = retryAfter(response) ?? pause(attempt);
      if (wait > maxRetryAfter) return response;
      await discard(response);
      await rest(wait, signal);
    } catch (error) {
      signal?.throwIfAborted();
      // What was waited for within, at a token server, is not waited for again.
      if (!hasCode(error, Code.Unavailable) || error.cause instanceof UnexpectedStatusError || exhausted.has(error)) {
        throw error;
      }
      if (last || isHopeless(error.cause)) {
        exhausted.add(error);
        throw error;
      }
      await rest(pause(attempt), signal);
    }
  }
}

export async function rest(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(milliseconds, undefined, { ...(signal && { signal }) });
}

/** 0.1 s before the second try, then twice as long each time, give or take a quarter. */
export function pause(attempt: number): number {
  return 100 * 2 ** (attempt - 1) * (0.75 + Math.random() / 2);
}

/** Milliseconds of a `Retry-After` in seconds or as a date. */
function retryAfter(response: HttpResponse): number | undefined {
  const value = header(response, 'retry-after');
  if (value === undefined) return undefined;
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}

/** Failures that the next second will not change. */
function isHopeless(reason: unknown): boolean {
  const code = codeOf(reason);
  return (
    ['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'UND_ERR_CONNECT_TIMEOUT'].includes(code) ||
    /CERT|ERR_SSL|ERR_TLS/.test(code)
  );
}
