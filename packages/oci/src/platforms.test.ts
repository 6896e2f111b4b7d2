import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  anyOfPlatforms,
  formatPlatform,
  formatPlatformAll,
  hostArchitecture,
  normalizePlatform,
  onlyOs,
  onlyPlatform,
  orderedPlatforms,
  parsePlatform,
} from './platforms.ts';

test('parses and formats', () => {
  const cases: [string, string][] = [
    ['linux/amd64', 'linux/amd64'],
    ['linux/x86_64', 'linux/amd64'],
    ['linux/amd64/v1', 'linux/amd64'],
    ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/aarch64', 'linux/arm64'],
    ['linux/arm64/v8', 'linux/arm64/v8'],
    ['linux/arm', 'linux/arm'],
    ['linux/arm/7', 'linux/arm/v7'],
    ['linux/armel', 'linux/arm/v6'],
    ['macos/arm64', 'darwin/arm64'],
    ['arm64', 'linux/arm64'],
    ['linux', `linux/${hostArchitecture()}`],
    ['windows(10.0.17763)/amd64', 'windows(10.0.17763)/amd64'],
    ['windows(10.0.17763+win32k)/amd64', 'windows(10.0.17763+win32k)/amd64'],
  ];
  for (const [text, wanted] of cases) assert.equal(formatPlatformAll(parsePlatform(text)), wanted, text);
  assert.equal(formatPlatform({ os: '', architecture: 'amd64' }), 'unknown');
  for (const bad of ['', '*', 'linux/*', 'what', 'a/b/c/d', 'linux/a b']) {
    assert.throws(() => parsePlatform(bad), { name: 'StatusError' }, bad);
  }
});

test('normal form', () => {
  assert.deepEqual(normalizePlatform({ os: 'Linux', architecture: 'x86-64', osFeatures: ['b', 'a', 'b'] }), {
    os: 'linux',
    architecture: 'amd64',
    osFeatures: ['a', 'b'],
  });
  assert.deepEqual(normalizePlatform({ os: 'linux', architecture: 'arm' }), {
    os: 'linux',
    architecture: 'arm',
    variant: 'v7',
  });
});

test('a processor runs what it is compatible with, the best first', () => {
  const sorted = (wanted: string, offered: string[]): string[] => {
    const matcher = onlyPlatform(parsePlatform(wanted));
    const fitting = offered.map(parsePlatform).filter((platform) => matcher.match(platform));
    return fitting.sort(matcher.compare).map(formatPlatform);
  };
  const arms = ['linux/arm/v5', 'linux/arm/v7', 'linux/amd64', 'linux/arm/v6', 'linux/arm64', 'linux/386'];
  assert.deepEqual(sorted('linux/arm/v7', arms), ['linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5']);
  assert.deepEqual(sorted('linux/arm64', arms), ['linux/arm64', 'linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5']);
  assert.deepEqual(sorted('linux/amd64', arms), ['linux/amd64', 'linux/386']);
  assert.deepEqual(sorted('linux/amd64/v3', ['linux/amd64', 'linux/amd64/v4', 'linux/amd64/v2']), [
    'linux/amd64/v2',
    'linux/amd64',
  ]);
  assert.deepEqual(sorted('linux/arm64/v9', ['linux/arm64/v8.5', 'linux/arm64/v8.6', 'linux/arm64/v9']), [
    'linux/arm64/v9',
    'linux/arm64/v8.5',
  ]);
});

test('lists of platforms, and any processor of an OS', () => {
  const both = orderedPlatforms(parsePlatform('linux/arm64'), parsePlatform('linux/amd64'));
  assert.ok(both.compare(parsePlatform('linux/arm64'), parsePlatform('linux/amd64')) < 0);
  assert.ok(!both.match(parsePlatform('linux/s390x')));
  const any = anyOfPlatforms(parsePlatform('linux/arm64'), parsePlatform('linux/amd64'));
  assert.equal(any.compare(parsePlatform('linux/arm64'), parsePlatform('linux/amd64')), 0);
  const os = onlyOs(parsePlatform('linux/amd64'));
  assert.ok(os.match(parsePlatform('linux/s390x')));
  assert.ok(!os.match(parsePlatform('windows/amd64')));
  assert.ok(os.compare(parsePlatform('linux/amd64'), parsePlatform('linux/s390x')) < 0);
  // An image that needs a feature the host does not have.
  assert.ok(!os.match({ os: 'linux', architecture: 'amd64', osFeatures: ['erofs'] }));
});
