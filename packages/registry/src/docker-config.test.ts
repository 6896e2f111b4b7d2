import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  dockerAuthOf,
  dockerHelperFor,
  dockerServerKey,
  parseDockerConfig,
  withDockerAuth,
  withoutDockerAuth,
} from './docker-config.ts';
import { DockerCredentialHelper } from './docker-helper.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

describe('config.json of Docker', () => {
  const config = parseDockerConfig(
    JSON.stringify({
      auths: {
        'https://index.docker.io/v1/': { auth: base64('hub:pa:ss\0\0') },
        'https://old.example.com/v1/': { auth: base64('old:secret') },
        'id.example.com': { auth: base64('ignored:x'), identitytoken: 'refresh-me' },
        'reg.example.com:5000': { registrytoken: 'bearer-me' },
        'plain.example.com': { username: 'u', password: 'p' },
        'helped.example.com': {},
      },
      credsStore: 'pass',
      credHelpers: { 'ecr.example.com': 'ecr-login', 'none.example.com': '' },
      HttpHeaders: { 'X-Meta': 'kept' },
    }),
  );

  test('logins by host, in each of their forms', () => {
    const cases: [string, unknown][] = [
      ['registry-1.docker.io', { kind: 'password', username: 'hub', secret: 'pa:ss' }],
      ['docker.io', { kind: 'password', username: 'hub', secret: 'pa:ss' }],
      ['old.example.com', { kind: 'password', username: 'old', secret: 'secret' }],
      ['id.example.com', { kind: 'refresh', token: 'refresh-me' }],
      ['reg.example.com:5000', { kind: 'header', value: 'Bearer bearer-me' }],
      ['reg.example.com', undefined],
      ['plain.example.com', { kind: 'password', username: 'u', secret: 'p' }],
      ['helped.example.com', undefined],
      ['other.example.com', undefined],
    ];
    for (const [host, login] of cases) assert.deepEqual(dockerAuthOf(config, host), login, host);
  });

  test('helpers by host', () => {
    assert.equal(dockerHelperFor(config, 'ecr.example.com'), 'ecr-login');
    assert.equal(dockerHelperFor(config, 'registry-1.docker.io'), 'pass');
    assert.equal(dockerHelperFor(config, 'none.example.com'), undefined);
    assert.equal(dockerHelperFor({}, 'x'), undefined);
  });

  test('a login is put in and taken out, all else is kept', () => {
    const written = withDockerAuth(config, 'new.example.com', { username: 'n', secret: 's' });
    assert.deepEqual(dockerAuthOf(written, 'new.example.com'), { kind: 'password', username: 'n', secret: 's' });
    assert.deepEqual(withDockerAuth({}, 'docker.io', undefined), { auths: { [dockerServerKey('docker.io')]: {} } });
    const removed = withoutDockerAuth(written, 'old.example.com');
    assert.equal(dockerAuthOf(removed, 'old.example.com'), undefined);
    assert.deepEqual(removed.HttpHeaders, { 'X-Meta': 'kept' });
    assert.equal(Object.keys(removed.auths ?? {}).length, 6);
  });

  test('what is wrong is said without quoting it', () => {
    for (const text of ['{"auths": {"x": {"auth": "SECRET"', '["SECRET"]', '{"auths": {"x": "SECRET"}}']) {
      assert.throws(
        () => parseDockerConfig(text),
        (error: Error) => !String(error.stack).includes('SECRET'),
      );
    }
    assert.deepEqual(parseDockerConfig(''), {});
  });
});

describe('docker-credential-* programs', () => {
  const helper = (code: number, stdout: string, seen: unknown[] = []) =>
    new DockerCredentialHelper('test', async (action, input) => {
      seen.push(action, input);
      return { code, stdout };
    });

  test('the protocol', async () => {
    const seen: unknown[] = [];
    const answer = '{"ServerURL":"x","Username":"u","Secret":"s"}';
    assert.deepEqual(await helper(0, answer, seen).get('x'), { kind: 'password', username: 'u', secret: 's' });
    await helper(0, '', seen).store({ serverUrl: 'x', username: 'u', secret: 's' });
    await helper(0, '', seen).erase('x');
    assert.deepEqual(await helper(0, '{"x":"u"}', seen).list(), { x: 'u' });
    assert.deepEqual(seen, ['get', 'x', 'store', answer, 'erase', 'x', 'list', '']);
    const token = '{"Username":"<token>","Secret":"t"}';
    assert.deepEqual(await helper(0, token).get('x'), { kind: 'refresh', token: 't' });
    const missing = helper(1, 'credentials not found in native keychain\n');
    assert.equal(await missing.get('x'), undefined);
    await missing.erase('x');
  });

  test('errors say what the helper said, but nothing that may be a secret', async () => {
    await assert.rejects(helper(2, 'pass not initialized\n').get('x'), /helper test get: exit status 2: pass not init/);
    for (const [code, stdout] of [
      [1, '{"Username":"u","Secret":"hunter2"}'],
      [0, 'hunter2'],
      [0, '{"Username":"u","Password":"hunter2"}'],
      [1, 'the password is hunter2'],
    ] as const) {
      await assert.rejects(helper(code, stdout).get('x'), (error: Error) => {
        assert.ok(!`${error.stack}${String(error.cause)}`.includes('hunter2'));
        return true;
      });
    }
  });
});
