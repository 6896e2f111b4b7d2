import { createPrivateKey, sign, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { TestingAuthority, type TestingCertificate } from '@gantry/registry/testing-certificates.ts';

/**
 * A token server as registries send their clients to: GET with basic authentication and OAuth2 by POST, with a password or
 * a refresh token. Its tokens say what the user may do; anybody may pull from `public/`.
 */
export class TokenServer {
  readonly issuer = 'token server of a test';
  readonly service = 'registry of a test';
  readonly refreshToken = 'refresh-token-of-the-tester';
  /** What was asked, as `GET`, `password` or `refresh_token` with the scopes. */
  readonly asked: string[] = [];
  /** Seconds that its tokens are good for. */
  lifetime = 300;
  readonly #authority = new TestingAuthority('tokens');
  readonly #signer: TestingCertificate = this.#authority.issue({ commonName: 'signer' });
  readonly #server: Server;
  readonly #user: { name: string; password: string };

  private constructor(user: { name: string; password: string }) {
    this.#user = user;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: Error) => response.writeHead(500).end(error.message));
    });
  }

  static async start(user: { name: string; password: string }): Promise<TokenServer> {
    const server = new TokenServer(user);
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    return server;
  }

  get realm(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/token`;
  }

  /** What a registry has to be told. */
  get registryOptions(): { realm: string; service: string; issuer: string; rootCert: string } {
    return { realm: this.realm, service: this.service, issuer: this.issuer, rootCert: this.#authority.cert };
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', this.realm);
    const form = request.method === 'POST' ? new URLSearchParams(await textOf(request)) : undefined;
    const scopes = form ? (form.get('scope') ?? '').split(' ') : url.searchParams.getAll('scope');
    const kind = form ? (form.get('grant_type') ?? '') : 'GET';
    this.asked.push([kind, ...scopes].join(' '));
    const known = form ? this.#knows(form) : this.#knowsHeader(request.headers.authorization);
    if (known === 'wrong') {
      const words = { error: 'invalid_grant', error_description: 'incorrect username or password' };
      return void response.writeHead(401, { 'content-type': 'application/json' }).end(JSON.stringify(words));
    }
    const token = this.#sign(known === 'user' ? this.#user.name : '', scopes);
    const body = { [form ? 'access_token' : 'token']: token, expires_in: this.lifetime };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  #knows(form: URLSearchParams): 'user' | 'wrong' {
    const right =
      form.get('grant_type') === 'refresh_token'
        ? form.get('refresh_token') === this.refreshToken
        : form.get('username') === this.#user.name && form.get('password') === this.#user.password;
    return right ? 'user' : 'wrong';
  }

  #knowsHeader(authorization: string | undefined): 'user' | 'anonymous' | 'wrong' {
    if (authorization === undefined) return 'anonymous';
    const { name, password } = this.#user;
    return authorization === `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}` ? 'user' : 'wrong';
  }

  #sign(subject: string, scopes: readonly string[]): string {
    const now = Math.floor(Date.now() / 1000);
    const access = scopes.flatMap((scope) => {
      const [type = '', name = '', actions = ''] = scope.split(':');
      const asked = actions.split(',');
      const granted =
        subject !== '' ? asked : asked.filter((action) => action === 'pull' && name.startsWith('public/'));
      return granted.length > 0 ? [{ type, name, actions: granted }] : [];
    });
    const certificate = new X509Certificate(this.#signer.cert);
    const header = { typ: 'JWT', alg: 'ES256', x5c: [certificate.raw.toString('base64')] };
    const claims = {
      iss: this.issuer,
      sub: subject,
      aud: this.service,
      iat: now,
      nbf: now - 10,
      exp: now + this.lifetime,
      jti: `${now}`,
      access,
    };
    const text = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
    const key = { key: createPrivateKey(this.#signer.key), dsaEncoding: 'ieee-p1363' as const };
    return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
  }
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk as string;
  return text;
}
