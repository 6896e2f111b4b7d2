import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import type { Descriptor } from '@gantry/oci';
import type { ImageVerifier } from './image-verifier.ts';
import { verifyPull } from './verify-image.ts';

/** What a verifier under test is to do. */
export type VerifierBehaviour =
  /** Say yes, giving `<name> <digest>` as its reason. */
  | 'allow'
  /** Say no with the reason `denied by rule 7`. */
  | 'deny'
  /** Never answer. */
  | 'hang'
  /** Die without an answer. */
  | 'crash'
  /** Not even begin. */
  | 'missing';

export interface VerifierHarness {
  /** Makes a verifier that behaves so; `hang` has to be given up after at most 500 ms. */
  make(behaviour: VerifierBehaviour): Promise<ImageVerifier>;
  close?(): Promise<void>;
}

export const contractImage: { name: string; descriptor: Descriptor } = {
  name: 'registry.example.com/app:1',
  descriptor: {
    mediaType: 'application/vnd.oci.image.index.v1+json',
    digest: `sha256:${'4'.repeat(64)}`,
    size: 304,
  },
};

/** What every verifier that asks code from outside has to hold. */
export function imageVerifierContract(kind: string, open: () => Promise<VerifierHarness>): void {
  describe(`${kind} as an image verifier`, () => {
    let harness: VerifierHarness | undefined;
    const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, with: () => silent };
    const judge = async (behaviour: VerifierBehaviour, signal?: AbortSignal): Promise<void> => {
      harness ??= await open();
      const verifier = await harness.make(behaviour);
      await verifyPull({ namespace: 'default', signal }, new Map([['under-test', verifier]]), contractImage, silent);
    };
    after(() => harness?.close?.());

    test('a yes lets the image through, and has seen its name and digest', async () => {
      harness ??= await open();
      const { name, descriptor } = contractImage;
      const judgement = await (await harness.make('allow')).verifyImage({ namespace: 'default' }, name, descriptor);
      assert.equal(judgement.ok, true);
      assert.match(judgement.reason, new RegExp(`${name} ${descriptor.digest}`));
      await judge('allow');
    });

    test('a no blocks with its reason', async () => {
      await assert.rejects(judge('deny'), (error) => {
        assert.ok(hasCode(error, Code.FailedPrecondition));
        assert.match(
          error.message,
          /^image verifier under-test blocked pull of registry\.example\.com\/app:1 with digest sha256:4{64} for reason: .*denied by rule 7$/,
        );
        return true;
      });
    });

    for (const behaviour of ['hang', 'crash', 'missing'] as const) {
      test(`no answer blocks: ${behaviour}`, async () => {
        const started = performance.now();
        await assert.rejects(judge(behaviour), {
          message:
            /^blocking pull of registry\.example\.com\/app:1 with digest sha256:4{64}: image verifier under-test returned error: /,
        });
        assert.ok(performance.now() - started < 20_000);
      });
    }

    test('a caller that leaves is not kept waiting', async () => {
      await assert.rejects(judge('hang', AbortSignal.timeout(50)));
    });
  });
}
