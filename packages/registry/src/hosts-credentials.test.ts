import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHostsFile } from './hosts-files.ts';

test('hosts.toml names the credential providers of each host', async () => {
  const text = `
server = "https://registry.example.com"
[credentials]
  providers = ["vault", "docker"]
[host."https://mirror.example.com".credentials]
  providers = []
[host."https://plain.example.com"]
`;
  const hosts = await parseHostsFile(text, '/', 'registry.example.com');
  assert.deepEqual(
    hosts.map(({ host, credentials }) => [host, credentials]),
    [
      ['mirror.example.com', []],
      ['plain.example.com', undefined],
      ['registry.example.com', ['vault', 'docker']],
    ],
  );
  const [own] = await parseHostsFile('[credentials]\nproviders = ["vault"]', '/', 'registry.example.com');
  assert.deepEqual(own?.credentials, ['vault']);
});

test('a secret has no place in it', async () => {
  const text = '[credentials]\npassword = "hunter2"';
  await assert.rejects(parseHostsFile(text, '/', 'registry.example.com'), (error: Error) => {
    assert.match(error.message, /credentials\.password: unknown key/);
    assert.ok(!error.message.includes('hunter2'));
    return true;
  });
  await assert.rejects(parseHostsFile('credentials = "x"', '/', 'x'), /credentials: expected a table/);
});
