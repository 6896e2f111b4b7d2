import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LineClock, LineFormat } from './line-format.ts';

const output = Buffer.alloc(4096);

/** The lines without their times, and how much of the input they took. */
function told(format: LineFormat, text: string, max = 100, end = false): [string[], number] {
  format.format(Buffer.from(text), output, max, end);
  const lines = output.toString('latin1', 0, format.length).split('\n').slice(0, -1);
  return [lines.map((line) => line.replace(/^\S+ /, '')), format.consumed];
}

test('whole lines are told, and what is none yet is left', () => {
  const format = new LineFormat('stdout', new LineClock());
  assert.deepEqual(told(format, 'one\n\ntwo\r\nrest'), [['stdout F one', 'stdout F ', 'stdout F two\r'], 10]);
  assert.deepEqual(told(format, 'rest', 100, true), [['stdout P rest'], 4]);
  assert.deepEqual(told(format, '', 100, true), [[], 0]);
});

test('a line that is too long is told in parts of at most that size', () => {
  const format = new LineFormat('stderr', new LineClock());
  assert.deepEqual(told(format, '12345678\n9\n12345', 4), [
    ['stderr P 1234', 'stderr F 5678', 'stderr F 9', 'stderr P 1234'],
    15,
  ]);
  assert.deepEqual([format.lines, format.parts], [2, 2]);
  // Exactly as long as may be: it may yet be a whole one.
  assert.deepEqual(told(format, '1234', 4), [[], 0]);
});

test('only as many as there is room for', () => {
  const format = new LineFormat('stdout', new LineClock());
  const small = output.subarray(0, format.overhead + 3);
  format.format(Buffer.from('one\ntwo\n'), small, 100, false);
  assert.equal(format.consumed, 4);
  assert.match(small.toString('latin1', 0, format.length), /stdout F one\n$/);
});

test('times have nine digits and grow from line to line, whatever the clock and the stream', () => {
  const clock = new LineClock();
  const formats = [new LineFormat('stdout', clock), new LineFormat('stderr', clock)];
  const large = Buffer.alloc(1 << 20);
  let last = '';
  for (let round = 0; round < 20; round++) {
    const format = formats[round % 2]!;
    format.format(Buffer.from('y\n'.repeat(1500)), large, 100, false);
    for (const line of large.toString('latin1', 0, format.length).split('\n').slice(0, -1)) {
      const [time] = line.split(' ');
      assert.match(time!, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
      assert.ok(time! > last, `${time} after ${last}`);
      last = time!;
    }
  }
  assert.ok(Math.abs(Date.parse(last) - Date.now()) < 60_000);
});
