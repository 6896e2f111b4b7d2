import { Code, hasCode, StatusError } from '@gantry/api';
import type { Credentials } from './credentials.ts';
import { HostClient } from './host-client.ts';
import { defaultHosts, type HostsProvider } from './hosts.ts';
import { AuthorizationError, UnexpectedStatusError } from './http-error.ts';
import { readBody } from './http-transport.ts';

/**
 * Asks a registry whether it lets somebody in: `GET /v2/` with the proof it wants. Answers false if it wants none, so that the
 * login was not put to the test.
 * @throws Unauthenticated if it says no; what else went wrong
 */
export async function checkLogin(
  host: string,
  credentials: Credentials,
  options: { hosts?: HostsProvider; signal?: AbortSignal } = {},
): Promise<boolean> {
  const endpoints = await (options.hosts ?? defaultHosts())(host);
  // Mirrors come first, the registry itself last: that is whom the login is for.
  const endpoint = endpoints.at(-1);
  if (!endpoint) throw new StatusError(Code.NotFound, `no host is configured for ${host}: not found`);
  let asked = false;
  const provide = async (): Promise<Credentials> => {
    asked = true;
    return credentials;
  };
  await using client = new HostClient(endpoint, { credentials: provide });
  try {
    const response = await client.send({ method: 'GET', path: '/', scopes: [], signal: options.signal });
    const body = await readBody(response, 64 << 10);
    if (response.status > 299) {
      throw new UnexpectedStatusError({ method: 'GET', url: response.url }, response.status, response.statusText, body);
    }
    return asked;
  } catch (error) {
    if (!hasCode(error, Code.Unauthenticated)) throw error;
    throw new AuthorizationError(`${host} refused the login: ${error.message}`, { cause: error });
  }
}
