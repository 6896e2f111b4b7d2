import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseQuantity } from './quantity.ts';

test('quantities are whole numbers, rounded up', () => {
  const cases: [string, bigint][] = [
    ['10M', 10_000_000n],
    ['1500k', 1_500_000n],
    ['1.5M', 1_500_000n],
    ['10Mi', 10_485_760n],
    ['0.5Ki', 512n],
    ['1e6', 1_000_000n],
    ['1E', 10n ** 18n],
    ['2E3', 2000n],
    ['1500m', 2n],
    ['1.1', 2n],
    ['+7', 7n],
    ['-1.5k', -1500n],
    ['.5k', 500n],
  ];
  for (const [text, value] of cases) assert.equal(parseQuantity(text), value, text);
});

test('anything else is refused', () => {
  for (const text of ['', '10X', 'M', '1 M', '10 mb', '--1'])
    assert.throws(() => parseQuantity(text), /quantities must match/);
  for (const text of ['1kk', '1Mk', '1e', '1e99']) assert.throws(() => parseQuantity(text), /suffix/);
  for (const text of ['.', '1.2.3']) assert.throws(() => parseQuantity(text), /numeric part/);
});
