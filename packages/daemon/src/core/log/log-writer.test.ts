import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger, parseLogLevel } from './log-writer.ts';

const clock = () => ({ seconds: 1795454584n, nanos: 449893 });

test('text lines have the shape of logrus, fields sorted, quoted only where needed', () => {
  const lines: string[] = [];
  const log = createLogger({ write: (line) => lines.push(line), now: clock });
  log.with({ type: 'io.containerd.content.v1' }).warn('a "b"', { id: 'x y', error: new Error('boom'), n: 3n });
  assert.deepEqual(lines, [
    'time="2026-11-23T17:23:04.000449893Z" level=warning msg="a \\"b\\"" error=boom id="x y" n=3 type=io.containerd.content.v1\n',
  ]);
});

test('json lines and levels', () => {
  const lines: string[] = [];
  const log = createLogger({ write: (line) => lines.push(line), now: clock, format: 'json', level: 'warn' });
  log.info('not seen');
  log.error('seen', { error: new Error('boom') });
  assert.deepEqual(JSON.parse(lines.join('')), {
    error: 'boom',
    level: 'error',
    msg: 'seen',
    time: '2026-11-23T17:23:04.000449893Z',
  });
  assert.equal(parseLogLevel('WARNING'), 'warn');
  assert.equal(parseLogLevel('loud'), undefined);
});
