import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PluginStatus } from '../plugin/plugin.ts';
import { PluginTypes } from '../plugin/plugin-types.ts';
import type { ImageVerifier } from './image-verifier.ts';
import { loadedVerifiers } from './loaded-verifiers.ts';

test('a verifier that failed to start blocks, one that was skipped does not', async () => {
  const works: ImageVerifier = { verifyImage: async () => ({ ok: true, reason: '' }) };
  const status = (id: string, error?: PluginStatus['error']): PluginStatus => ({
    type: PluginTypes.ImageVerifier,
    id,
    requires: [],
    meta: { platforms: [], exports: {}, capabilities: [] },
    error,
  });
  const verifiers = loadedVerifiers({
    all: () => new Map([['works', works]]) as Map<string, never>,
    statuses: () => [
      status('works'),
      status('broken', { skip: false, message: 'no key', code: 3 }),
      status('unused', { skip: true, message: 'nothing configured', code: 2 }),
    ],
  });
  assert.deepEqual([...verifiers.keys()], ['works', 'broken']);
  const image = { mediaType: '', digest: '', size: 0 };
  await assert.rejects(async () => verifiers.get('broken')?.verifyImage({ namespace: 'x' }, 'x', image), /no key/);
});
