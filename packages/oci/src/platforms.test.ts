import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Platform } from './descriptor.ts';
import { anyOfPlatforms, onlyOs, onlyPlatform, orderedPlatforms, strictPlatform } from './platform-matchers.ts';
import { formatPlatform, formatPlatformAll, hostArchitecture, normalizePlatform, parsePlatform } from './platforms.ts';

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
    ['linux(+erofs)/amd64', 'linux(+erofs)/amd64'],
    ['linux(1%2B2+b+a%2F)/amd64', 'linux(1%2B2+a%2F+b)/amd64'],
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

test('an OS version fits by Windows’ own rules, and means nothing elsewhere', () => {
  const fits = (host: string, image: string): boolean =>
    strictPlatform(parsePlatform(`windows(${host})/amd64`)).match(
      image === '' ? { os: 'windows', architecture: 'amd64' } : parsePlatform(`windows(${image})/amd64`),
    );
  const cases: [string, string, boolean][] = [
    ['10.0.17763', '10.0.17763.1', true],
    ['10.0.17763', '10.0.17764', false],
    ['10.0.20348', '10.0.17763', false],
    ['10.0.22621', '10.0.20348', true],
    ['10.0.22621', '10.0.25398', false],
    ['10.0.26100', '10.0.20348', true],
    ['10.0.27000', '10.0.25398', false],
    ['10.0.27000', '10.0.26100', true],
    ['10.1.17763', '10.0.17763', false],
    ['10.0.17763', '', true],
    ['10.0.17763', '10.0', false],
    ['10.0', '10.0.17763', true],
  ];
  for (const [host, image, wanted] of cases) assert.equal(fits(host, image), wanted, `${image} on ${host}`);
  assert.ok(strictPlatform(parsePlatform('linux(1)/amd64')).match(parsePlatform('linux(2)/amd64')));
});

test('features: what needs others does not fit, what uses more is better', () => {
  const wanted: Platform = { os: 'linux', architecture: 'amd64', osFeatures: ['b', 'a'] };
  const offer = (...osFeatures: string[]): Platform => ({ os: 'linux', architecture: 'amd64', osFeatures });
  for (const matcher of [orderedPlatforms(wanted), anyOfPlatforms(wanted), onlyOs(wanted), onlyPlatform(wanted)]) {
    assert.ok(!matcher.match(offer('c')));
    assert.ok(!matcher.match(offer('a', 'c')));
    const sorted = [offer('c'), offer(), offer('b'), offer('a', 'b')].sort(matcher.compare);
    assert.deepEqual(
      sorted.map(({ osFeatures }) => osFeatures),
      [['a', 'b'], ['b'], [], ['c']],
    );
  }
  // The processor matters more than features; of what does not fit, the better processor still comes first.
  const both = orderedPlatforms(parsePlatform('linux(+a)/amd64'), parsePlatform('linux(+a)/386'));
  assert.ok(both.compare(parsePlatform('linux/amd64'), parsePlatform('linux(+a)/386')) < 0);
  assert.ok(both.compare(parsePlatform('linux(+x)/amd64'), parsePlatform('linux(+y)/386')) < 0);
});
