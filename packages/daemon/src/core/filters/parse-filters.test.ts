import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import type { FieldLookup } from './filter.ts';
import { parseFilters } from './parse-filters.ts';

const object: Record<string, string> = {
  name: 'docker.io/library/busybox:latest',
  'target.digest': 'sha256:abc',
  size: '42',
  'labels.foo': 'true',
  'labels.bar': 'a,b',
  'labels.very.complex/label': 'something',
  'labels.quote': 'say "hi" \\ é',
  'labels.empty': '',
};
const lookup: FieldLookup = (path) => object[path.join('.')];

const cases: [filter: string, matches: boolean][] = [
  ['', true],
  ['name', true],
  ['nothing', false],
  ['labels.foo', true],
  ['labels.empty', true],
  ['labels.foo==true', true],
  ['labels.foo==false', false],
  ['labels.foo!=false', true],
  ['labels.foo!=true', false],
  ['labels.absent==x', false],
  ['labels.absent==""', false],
  ['labels.absent!=x', true],
  ['labels.absent!=""', false],
  ['labels.absent~=x', false],
  ['size==42', true],
  ['target.digest==sha256:abc', true],
  ['name==docker.io/library/busybox:latest', true],
  ['name==busybox', false],
  ['name~=busybox', true],
  ['name~=^docker', true],
  ['name~="^busybox$"', false],
  ['name~=/^docker\\.io\\/library\\//', true],
  ['name~=|^docker\\.io/library/|', true],
  ['name~="BUSYBOX"', false],
  ['name~="(?i)BUSYBOX"', true],
  ['name~="\\\\Adocker.*latest\\\\z"', true],
  ['name~=/busybox\\-?:/', true],
  ['labels."very.complex/label"==something', true],
  ['labels."very.complex/label"', true],
  ['labels."very.complex/other"', false],
  ['labels.bar=="a,b"', true],
  ['labels.bar=="a,b",labels.foo==true', true],
  ['labels.bar=="a,b",labels.foo==false', false],
  ['name,size,labels.foo', true],
  ['name,size,labels.fox', false],
  ['labels.quote=="say \\"hi\\" \\\\ \\u00e9"', true],
  [' labels.foo == true , size == 42 ', true],
];
for (const [filter, matches] of cases) {
  test(`filter ${JSON.stringify(filter)} ${matches ? 'matches' : 'does not match'}`, () => {
    assert.equal(parseFilters([filter]).matches(lookup), matches);
  });
}

test('of several filters any may match; none at all match everything', () => {
  assert.equal(parseFilters(['nothing', 'size==42']).matches(lookup), true);
  assert.equal(parseFilters(['nothing', 'size==43']).matches(lookup), false);
  assert.equal(parseFilters([]).matches(lookup), true);
});

for (const broken of [
  'name==',
  'name=x',
  '==x',
  'name,',
  ',name',
  'name.',
  'name=="open',
  'name=="\\q"',
  'name~=/open',
  'name~="("',
  'name x',
  'labels."a"b',
]) {
  test(`filter ${JSON.stringify(broken)} is refused`, () => {
    assert.throws(
      () => parseFilters([broken]),
      (error) => hasCode(error, Code.InvalidArgument) && /^parse error: \[/.test(error.message),
    );
  });
}
