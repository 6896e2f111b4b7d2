import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAny, jsonAny, packAny, unpackAny } from './any.ts';
import { Code } from './code.ts';
import { MountSchema } from './gen/types/mount_pb.js';
import { PlatformSchema } from './gen/types/platform_pb.js';
import { hasCode, notFound, StatusError } from './status-error.ts';
import { compareTime, formatTime, fromMillis, now, parseTime, toMillis } from './time.ts';
import { TypeUrl } from './type-urls.ts';

test('an Any carries the bare full name, and reads the prefixed one', () => {
  const any = packAny(MountSchema, { type: 'bind', source: '/a', options: ['ro'] });
  assert.equal(any.typeUrl, 'containerd.types.Mount');
  assert.equal(unpackAny(MountSchema, { ...any, typeUrl: `type.googleapis.com/${any.typeUrl}` }).source, '/a');
  assert.equal(isAny(any, PlatformSchema), false);
  assert.throws(
    () => unpackAny(PlatformSchema, any),
    (error) => hasCode(error, Code.InvalidArgument),
  );
});

test('JSON in an Any stays the bytes it was', () => {
  const text = '{"a":9007199254740993}';
  assert.equal(new TextDecoder().decode(jsonAny(TypeUrl.RuntimeSpec, text).value), text);
});

test('errors keep code and details through wrapping', () => {
  const inner = notFound('image "x": not found');
  const outer = StatusError.wrap(inner, 'failed to get image');
  assert.equal(outer.code, Code.NotFound);
  assert.equal(outer.message, 'failed to get image: image "x": not found');
  assert.equal(outer.cause, inner);
  assert.equal(StatusError.from(new DOMException('gone', 'AbortError')).code, Code.Canceled);
  assert.equal(StatusError.from('text').code, Code.Unknown);
});

test('times keep nanoseconds and compare', () => {
  const time = parseTime('2026-11-23T17:23:04.146699013Z')!;
  assert.deepEqual(time, { seconds: 1795454584n, nanos: 146699013 });
  assert.equal(formatTime(time), '2026-11-23T17:23:04.146699013Z');
  assert.equal(formatTime({ seconds: 0n, nanos: 500_000_000 }), '1970-01-01T00:00:00.5Z');
  assert.deepEqual(parseTime('1970-01-01T01:00:00+01:00'), { seconds: 0n, nanos: 0 });
  assert.equal(parseTime('yesterday'), undefined);
  assert.ok(compareTime(time, now()) !== 0);
  assert.ok(compareTime({ seconds: 1n, nanos: 2 }, { seconds: 1n, nanos: 3 }) < 0);
  assert.equal(toMillis(fromMillis(1234.5)), 1234.5);
  const first = now();
  assert.ok(compareTime(first, now()) <= 0);
});
