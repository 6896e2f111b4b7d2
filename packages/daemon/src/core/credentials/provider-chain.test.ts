import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../log/log-writer.ts';
import type { CredentialProvider } from './credential-provider.ts';
import { ProviderChain } from './provider-chain.ts';

const knows = (username: string): CredentialProvider => ({
  get: async () => ({ kind: 'password', username, secret: 's3cret' }),
});
const empty: CredentialProvider = { get: async () => undefined };
const fails: CredentialProvider = { get: () => Promise.reject(new Error('keyring is locked')) };

const lines: string[] = [];
const log = createLogger({ level: 'debug', write: (line) => lines.push(line) });
const all = [
  { name: 'empty', provider: empty, matchImages: [] },
  { name: 'fails', provider: fails, matchImages: [] },
  { name: 'elsewhere', provider: knows('elsewhere'), matchImages: ['*.other.io'] },
  { name: 'first', provider: knows('first'), matchImages: [] },
  { name: 'second', provider: knows('second'), matchImages: [] },
];
const request = { host: 'a.io', reference: 'a.io/x:1' };

test('providers are asked in order; hosts may name their own', async () => {
  const chain = new ProviderChain(all, ['empty', 'fails', 'elsewhere', 'first', 'second'], log);
  const user = async (providers?: string[]): Promise<unknown> => {
    const found = await chain.get({ ...request, ...(providers && { providers }) });
    return found?.kind === 'password' ? found.username : found;
  };
  assert.equal(await user(), 'first');
  assert.equal(await user(['second', 'first']), 'second');
  assert.equal(await user(['elsewhere']), undefined);
  assert.equal(await user([]), undefined);
  await assert.rejects(user(['empty', 'fails']), /credential provider fails failed for a\.io\/x: keyring is locked/);
  await assert.rejects(user(['nobody']), /hosts\.toml of a\.io names credential provider "nobody"/);
  assert.match(lines.join(''), /credentials found/);
  assert.ok(!lines.join('').includes('s3cret'));
});
