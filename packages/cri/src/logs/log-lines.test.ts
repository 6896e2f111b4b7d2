import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogLines } from './log-lines.ts';

const texts = (lines: Buffer[]) => lines.map((line) => line.toString('utf8').replace(/^\S+ /, ''));

test('lines are whole whatever pieces they come in', () => {
  const lines = new LogLines('stdout', 0);
  assert.deepEqual(texts(lines.add(Buffer.from('one\ntw'))), ['stdout F one\n']);
  assert.deepEqual(texts(lines.add(Buffer.from('o\n\n'))), ['stdout F two\n', 'stdout F \n']);
  assert.deepEqual(texts(lines.add(Buffer.from('rest'))), []);
  assert.deepEqual(texts(lines.end()), ['stdout P rest\n']);
  assert.deepEqual(texts(lines.end()), []);
});

test('a line that is too long is told in parts of at most that size', () => {
  const lines = new LogLines('stderr', 4);
  const told = texts([...lines.add(Buffer.from('12345')), ...lines.add(Buffer.from('678\n9\n'))]);
  assert.deepEqual(told, ['stderr P 1234\n', 'stderr F 5678\n', 'stderr F 9\n']);
});
