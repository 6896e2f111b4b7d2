import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import type { CredentialProvider } from './credential-provider.ts';

/** What a provider under test is backed by. */
export interface ProviderHarness {
  /** Knows `user` with `secretWord` for `knownHost` and nothing for other hosts. */
  good: CredentialProvider;
  /** Fails whenever it is asked, after printing `secretWord` wherever it can. */
  broken?: CredentialProvider;
  /** Never answers; is given up after at most 500 ms. */
  hanging?: CredentialProvider;
  /** All that it logged so far. */
  log(): string;
  close(): Promise<void>;
}

export const knownHost = 'registry.example.com:5000';
export const secretWord = 'hunter2-Zg7';

/** What every provider has to hold. */
export function credentialProviderContract(kind: string, open: () => Promise<ProviderHarness>): void {
  describe(`${kind} as a credential provider`, () => {
    let harness: ProviderHarness;
    const reference = `${knownHost}/team/app:1`;
    before(async () => {
      harness = await open();
    });
    after(() => harness.close());

    test('gives the login of a host it knows, however often it is asked', async () => {
      const expected = { kind: 'password', username: 'user', secret: secretWord };
      for (const request of [
        { host: knownHost, reference },
        { host: knownHost, reference },
      ]) {
        const { expiresAt: _, ...login } = (await harness.good.get(request)) ?? assert.fail('no login');
        assert.deepEqual(login, expected);
      }
      const many = await Promise.all(Array.from({ length: 5 }, () => harness.good.get({ host: knownHost, reference })));
      for (const login of many) assert.equal(login?.kind, 'password');
    });

    test('gives nothing for a host it does not know, nor for a mirror of one it knows', async () => {
      assert.equal(
        await harness.good.get({ host: 'other.example.com', reference: 'other.example.com/x:1' }),
        undefined,
      );
      assert.equal(await harness.good.get({ host: 'mirror.example.com', reference }), undefined);
    });

    test('an error tells no secret, and neither does the log', async (context) => {
      if (!harness.broken) return context.skip('it cannot break');
      await assert.rejects(harness.broken.get({ host: knownHost, reference }), (error: Error) => {
        assert.ok(!inspect(error, { depth: 20, showHidden: true }).includes(secretWord), error.message);
        assert.ok(error.message.length > 10);
        return true;
      });
      assert.ok(!harness.log().includes(secretWord));
    });

    test('one that never answers is given up, and left when its caller leaves', async (context) => {
      if (!harness.hanging) return context.skip('it cannot hang');
      await assert.rejects(harness.hanging.get({ host: knownHost, reference }));
      await assert.rejects(harness.hanging.get({ host: knownHost, reference }, AbortSignal.timeout(20)));
    });
  });
}
