import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { Code, hasCode, type StatusError } from '@gantry/api';
import { MediaType } from '@gantry/oci';
import type { Credentials } from './credentials.ts';
import { RegistryClient, type RegistryClientOptions } from './registry-client.ts';
import { TestingRegistry } from './testing-registry.ts';
import { TokenCache } from './token-cache.ts';

const manifest = { schemaVersion: 2, mediaType: MediaType.OciManifest, config: {}, layers: [] };

/** Answers of the token server: a body, or a status and what it says. */
type TokenAnswer = { token?: string; expires_in?: number; status?: number; says?: string };

/** A registry that lets in `Bearer good-…`, with its token server at `/token`. */
async function start(answer: (form: URLSearchParams, request: IncomingMessage) => TokenAnswer) {
  const asked: string[] = [];
  const revoked = new Set<string>();
  const registry = await TestingRegistry.start({
    intercept(request, response, it) {
      const url = new URL(request.url ?? '', `http://${it.host}`);
      if (url.pathname === '/token') {
        let text = '';
        request.on('data', (piece) => {
          text += piece;
        });
        request.on('end', () => {
          const form = request.method === 'POST' ? new URLSearchParams(text) : url.searchParams;
          asked.push(`${request.method} ${form.getAll('scope').join('|')}`);
          const { status = 200, says, ...body } = answer(form, request);
          response.writeHead(status).end(says ?? JSON.stringify(body));
        });
        return true;
      }
      const { authorization = '' } = request.headers;
      if (authorization.startsWith('Bearer good') && !revoked.has(authorization)) return false;
      const repository = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(url.pathname)?.[1];
      const error = authorization === '' ? '' : ',error="invalid_token"';
      const scope = `scope="repository:${repository}:pull"`;
      const challenge = `Bearer realm="http://${it.host}/token",service="test",${scope}${error}`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return true;
    },
  });
  registry.addManifest('a', MediaType.OciManifest, manifest, 'v1');
  registry.addManifest('b', MediaType.OciManifest, manifest, 'v1');
  const login = (username: string): Credentials => ({ kind: 'password', username, secret: `secret of ${username}` });
  const clients: RegistryClient[] = [];
  return {
    registry,
    asked,
    revoked,
    login,
    client(options: RegistryClientOptions = {}): RegistryClient {
      const client = new RegistryClient(options);
      clients.push(client);
      return client;
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) await client[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

test('clients share tokens of the same user, and of nobody else', async () => {
  await using it = await start((form) => ({ token: `good-${form.get('username') ?? 'anonymous'}`, expires_in: 300 }));
  const tokens = new TokenCache();
  const resolve = (user?: string): Promise<unknown> =>
    it
      .client({ tokens, ...(user !== undefined && { credentials: async () => it.login(user) }) })
      .resolve(`${it.registry.host}/a:v1`);
  for (const user of ['me', 'me', 'you', undefined, undefined]) await resolve(user);
  assert.deepEqual(it.asked, ['POST repository:a:pull', 'POST repository:a:pull', 'GET repository:a:pull']);
  const sent = it.registry.headers.map(({ authorization }) => authorization).filter((value) => value !== undefined);
  assert.deepEqual(sent, [
    'Bearer good-me',
    'Bearer good-me',
    'Bearer good-you',
    'Bearer good-anonymous',
    'Bearer good-anonymous',
  ]);
  // The second of a user is not refused first.
  assert.equal(it.registry.requests.filter((line) => line.startsWith('HEAD')).length, 8);
});

test('one token at a time for many requests; each repository its own', async () => {
  await using it = await start(() => ({ token: 'good', expires_in: 300 }));
  const client = it.client();
  const one = (name: string): Promise<unknown> => client.resolve(`${it.registry.host}/${name}:v1`);
  await Promise.all(['a', 'a', 'a', 'b', 'b'].map(one));
  assert.deepEqual(it.asked.sort(), ['GET repository:a:pull', 'GET repository:b:pull']);
});

test('a token that is not taken any more is renewed', async () => {
  let count = 0;
  await using it = await start(() => ({ token: `good-${++count}`, expires_in: 300 }));
  const client = it.client();
  await client.resolve(`${it.registry.host}/a:v1`);
  it.revoked.add('Bearer good-1');
  await client.resolve(`${it.registry.host}/a:v1`);
  assert.equal(it.asked.length, 2);
});

test('a token server in trouble is waited for; one that stays so is no refusal of ours', async () => {
  let busy = 2;
  await using it = await start(() => (busy-- > 0 ? { status: 503 } : { token: 'good' }));
  await it.client().resolve(`${it.registry.host}/a:v1`);
  assert.equal(it.asked.length, 3);
  busy = 100;
  await assert.rejects(it.client().resolve(`${it.registry.host}/a:v1`), (error) => {
    assert.ok(hasCode(error, Code.Unavailable), String(error));
    assert.match(error.message, /failed to fetch anonymous token: unexpected status from GET request to http:.*503/);
    return true;
  });
});

test('a wrong password is said once, without the password, whatever the server repeats', async () => {
  await using it = await start((form) => ({
    status: 401,
    says: JSON.stringify({ details: `user ${form.get('username')} has no password ${form.get('password')}` }),
  }));
  const client = it.client({ credentials: async () => ({ kind: 'password', username: 'me', secret: 'pass word&1' }) });
  await assert.rejects(client.resolve(`${it.registry.host}/a:v1`), (error: StatusError) => {
    assert.equal(error.code, Code.Unauthenticated);
    assert.match(
      error.message,
      /^pull access denied, repository does not exist or may require authorization: failed to fetch/,
    );
    assert.match(
      error.message,
      /authorization failed .*log in with "ctr registry login localhost:\d+", or pass --user/,
    );
    assert.doesNotMatch(error.message, /pass word&1|pass%20word|cGFzcyB3b3Jk/);
    return true;
  });
  // OAuth2 first, then the way of registries that do not know it.
  assert.deepEqual(it.asked, ['POST repository:a:pull', 'GET repository:a:pull']);
});

test('who wants the credentials is told to who has them', async () => {
  await using it = await start(() => ({ token: 'good', expires_in: 300 }));
  const wanted: unknown[] = [];
  let login: Credentials = { ...it.login('me'), expiresAt: Date.now() - 1 };
  const client = it.client({
    credentials: async (request) => {
      wanted.push(request);
      return login;
    },
  });
  const reference = `${it.registry.host}/a:v1`;
  await client.resolve(reference);
  const { host } = it.registry;
  const challenges = [`Bearer realm="http://${host}/token",service="test",scope="repository:a:pull"`];
  assert.deepEqual(wanted[0], { host, reference, scopes: ['repository:a:pull'], challenges });
  // What has ended is asked for again; what has not is kept.
  const before = wanted.length;
  login = it.login('me');
  await client.resolve(reference);
  await client.resolve(reference);
  assert.equal(wanted.length, before + 1);
});

test('a redirect’s refusal gets nobody’s login', async () => {
  await using thief = await TestingRegistry.start({
    intercept(request, response, registry) {
      const challenge = `Bearer realm="http://${registry.host}/token",service="x"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return request.url !== '';
    },
  });
  await using origin = await TestingRegistry.start({
    intercept(_request, response) {
      response.writeHead(307, { location: `http://${thief.host}/v2/a/manifests/v1` }).end();
      return true;
    },
  });
  await using client = new RegistryClient({
    credentials: async () => ({ kind: 'password', username: 'me', secret: 'secret' }),
  });
  await assert.rejects(client.resolve(`${origin.host}/a:v1`), /401 Unauthorized/);
  assert.ok(thief.requests.every((line) => !line.includes('/token')));
  assert.ok(thief.headers.every(({ authorization }) => authorization === undefined));
});
