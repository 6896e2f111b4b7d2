import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lineThrough } from './slope.ts';

test('a line is found through what scatters, with how sure that is', () => {
  assert.deepEqual(lineThrough([3, 5, 7, 9]), { slope: 2, error: 0 });
  assert.deepEqual(lineThrough([4, 4, 4]), { slope: 0, error: 0 });
  assert.deepEqual(lineThrough([1]), { slope: 0, error: 0 });
  const { slope, error } = lineThrough([10, 13, 11, 14, 12, 15]);
  assert.ok(Math.abs(slope - 0.714) < 0.001, String(slope));
  assert.ok(Math.abs(error - 0.357) < 0.02, String(error));
});
