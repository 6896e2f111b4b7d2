import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, parseDuration } from './duration.ts';

test('Go durations are read', () => {
  const cases: [string, number | undefined][] = [
    ['0', 0],
    ['0s', 0],
    ['1h0m0.5s', 3_600_500],
    ['100ms', 100],
    ['1.5h', 5_400_000],
    ['-2m', -120_000],
    ['3us', 0.003],
    ['5', undefined],
    ['', undefined],
    ['5 s', undefined],
    ['s', undefined],
    ['1d', undefined],
  ];
  for (const [text, expected] of cases) assert.equal(parseDuration(text), expected, text);
});

test('and written the way Go does', () => {
  for (const text of ['0s', '1h0m0.5s', '5m0s', '100ms', '2s', '4h0m0s', '1.5ms', '-1m0s']) {
    assert.equal(formatDuration(parseDuration(text)!), text);
  }
});
