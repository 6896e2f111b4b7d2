import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { checkLogin } from './check-login.ts';
import { basic } from './credentials.ts';
import { defaultHosts } from './hosts.ts';
import { TestingRegistry } from './testing-registry.ts';

const login = { kind: 'password', username: 'me', secret: 'right' } as const;
const hosts = defaultHosts('http');

/** A registry that wants a token, and whose token server wants the password. */
async function tokenRegistry(): Promise<TestingRegistry> {
  return await TestingRegistry.start({
    intercept(request, response, registry) {
      const { authorization } = request.headers;
      if (request.url === '/v2/') {
        const realm = `http://${registry.host}/token`;
        if (authorization === 'Bearer good') response.writeHead(200).end('{}');
        else response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="test"` }).end();
        return true;
      }
      if (!request.url?.startsWith('/token')) return false;
      if (request.method === 'POST') response.writeHead(405).end();
      else if (authorization === basic('me', 'right')) response.writeHead(200).end('{"token":"good"}');
      else response.writeHead(401).end();
      return true;
    },
  });
}

test('a token registry: the right password, and a wrong one', async () => {
  await using registry = await tokenRegistry();
  assert.equal(await checkLogin(registry.host, login, { hosts }), true);
  await assert.rejects(checkLogin(registry.host, { ...login, secret: 'hunter2' }, { hosts }), (error: Error) => {
    assert.ok(hasCode(error, Code.Unauthenticated));
    assert.match(error.message, /refused the login/);
    assert.ok(!error.message.includes('hunter2'));
    return true;
  });
});

test('a registry that asks for no login has not tried it out', async () => {
  await using registry = await TestingRegistry.start({
    intercept(request, response) {
      if (request.url === '/v2/') response.writeHead(200).end('{}');
      return request.url === '/v2/';
    },
  });
  assert.equal(await checkLogin(registry.host, login, { hosts }), false);
});

test('what is no registry is an error', async () => {
  await using registry = await TestingRegistry.start({
    intercept(_, response) {
      response.writeHead(404).end('nothing here');
      return true;
    },
  });
  await assert.rejects(checkLogin(registry.host, login, { hosts }), /404/);
});
