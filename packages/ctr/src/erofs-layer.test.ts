import assert from 'node:assert/strict';
import { test } from 'node:test';
import { uuidOf } from './erofs-layer.ts';

test('the UUID of an EROFS layer is of version 5, and the same for the same layer', () => {
  const digest = `sha256:${'0'.repeat(64)}`;
  assert.match(uuidOf(digest), /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(uuidOf(digest), uuidOf(digest));
  assert.notEqual(uuidOf(digest), uuidOf(`sha256:${'1'.repeat(64)}`));
  // As Python's uuid.uuid5(uuid.NAMESPACE_URL, …) has it.
  assert.equal(uuidOf('sha256:abc'), '85e718ef-380a-569e-869f-1e4fa72e8846');
});
