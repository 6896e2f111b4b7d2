import { invalidArgument } from '@gantry/api';
import type { AuthConfig } from '@gantry/api/gen/cri/v1/api_pb.js';
import type { Credentials, CredentialsProvider } from '@gantry/registry';

/** The login that a pull request carries, for the registry of its image only. @throws InvalidArgument for one that makes no sense */
export function requestCredentials(auth: AuthConfig | undefined): CredentialsProvider | undefined {
  if (!auth) return undefined;
  const login = loginOf(auth);
  if (!login) return undefined;
  const server = serverHost(auth.serverAddress);
  return async ({ host }) => {
    if (server !== '' && server !== host && !(server === 'docker.io' && host === 'registry-1.docker.io'))
      return undefined;
    return login;
  };
}

function loginOf(auth: AuthConfig): Credentials | undefined {
  if (auth.username !== '') return { kind: 'password', username: auth.username, secret: auth.password };
  if (auth.identityToken !== '') return { kind: 'refresh', token: auth.identityToken };
  if (auth.auth !== '') {
    const text = Buffer.from(auth.auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon < 0) throw invalidArgument(`invalid decoded auth: it has no colon: invalid argument`);
    return { kind: 'password', username: text.slice(0, colon), secret: text.slice(colon + 1).replace(/\0+$/, '') };
  }
  if (auth.registryToken !== '') return { kind: 'header', value: `Bearer ${auth.registryToken}` };
  return undefined;
}

/** Server addresses come as hosts and as URLs. */
function serverHost(address: string): string {
  if (address === '') return '';
  try {
    const { host } = new URL(address.includes('://') ? address : `https://${address}`);
    return host === 'index.docker.io' ? 'registry-1.docker.io' : host;
  } catch {
    throw invalidArgument(`parse server address ${JSON.stringify(address)}: invalid argument`);
  }
}
