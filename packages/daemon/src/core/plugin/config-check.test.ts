import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkTable, withDefaults } from './config-check.ts';
import { field, schema } from './config-schema.ts';

const fields = schema({
  path: field.path('/opt/x'),
  interval: field.duration('10s'),
  count: field.integer(3),
  names: field.strings(['a']),
  labels: field.map(),
  nested: field.table({ on: field.boolean(true) }),
  runtimes: field.tables({ type: field.string('runc') }, { runc: {} }),
}).fields as Parameters<typeof checkTable>[0];
const place = { file: '/etc/x.toml', table: ['plugins', 'io.containerd.x.v1.y'] };

test('defaults are filled in and durations become milliseconds', () => {
  const warnings: string[] = [];
  const value = checkTable(fields, { interval: '1m', extra: 1, runtimes: { crun: {} } }, place, (w) =>
    warnings.push(w),
  );
  assert.deepEqual(value, {
    path: '/opt/x',
    interval: 60_000,
    count: 3,
    names: ['a'],
    labels: {},
    nested: { on: true },
    runtimes: { crun: { type: 'runc' } },
  });
  assert.deepEqual(warnings, ['/etc/x.toml: table [plugins."io.containerd.x.v1.y"]: key extra is unknown and ignored']);
});

test('a wrong value names file, table, key and what was expected', () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ interval: '10 parsecs' }, /key interval: expected a duration such as .*, got the string "10 parsecs"/],
    [{ interval: 10 }, /key interval: expected a duration/],
    [{ count: 'x' }, /: \/etc\/x\.toml: table \[plugins\."io\.containerd\.x\.v1\.y"\]: key count: expected an integer/],
    [{ names: [1] }, /key names: expected an array of strings, got an array/],
    [{ path: 'relative' }, /key path: expected an absolute path, got the string "relative"/],
    [{ nested: { on: 1 } }, /y"\.nested\]: key on: expected true or false, got number 1/],
    [{ runtimes: { crun: { type: 1 } } }, /runtimes\.crun\]: key type: expected a string/],
    [{ runtimes: [] }, /key runtimes: expected a table of tables, got an array/],
  ];
  for (const [raw, message] of cases) assert.throws(() => checkTable(fields, raw, place, () => {}), message);
});

test('defaults are printed in the form of the file', () => {
  assert.deepEqual(withDefaults(fields, { interval: '90s', other: 1 }), {
    path: '/opt/x',
    interval: '1m30s',
    count: 3,
    names: ['a'],
    labels: {},
    nested: { on: true },
    runtimes: { runc: { type: 'runc' } },
    other: 1,
  });
});
