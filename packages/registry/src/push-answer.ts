import { failedPrecondition } from '@gantry/api';
import { requestFailed, safeUrl, UnexpectedStatusError } from './http-error.ts';
import { discard, type HttpResponse, header, readBody } from './http-transport.ts';

/** What a registry said to a push. */

/** An error with the registry's own words. */
export async function unexpectedAnswer(response: HttpResponse, method: string): Promise<Error> {
  const { url, status, statusText } = response;
  try {
    return new UnexpectedStatusError({ method, url }, status, statusText, await readBody(response, 64 << 10));
  } catch (error) {
    return requestFailed({ method, url }, error);
  }
}

/** @throws unless it was taken, as what it is. */
export async function acceptPushed(response: HttpResponse, method: string, digest: string): Promise<void> {
  if (![200, 201, 204].includes(response.status)) throw await unexpectedAnswer(response, method);
  const actual = header(response, 'docker-content-digest');
  await discard(response);
  if (actual !== undefined && actual !== digest) {
    throw failedPrecondition(
      `got digest ${actual}, expected ${digest}: ${method} ${safeUrl(response.url)} (${response.status} ${response.statusText}): failed precondition`,
    );
  }
}
