import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code } from '@gantry/api';
import { defaultPlatform } from '@gantry/oci';
import type { Differ } from '../../core/diff/differ.ts';
import { unpackSupport } from './unpack-support.ts';

const differ = (): Differ => ({ apply: () => assert.fail(), diff: () => assert.fail() });
const [walking, erofs] = [differ(), differ()];
const differs = new Map([
  ['walking', walking],
  ['erofs', erofs],
]);
const host = defaultPlatform();
const withFeature = { ...host, osFeatures: ['erofs'] };
const foreign = { os: 'linux', architecture: 's390x' };

test('without configuration every image of the OS, and EROFS images where there is their snapshotter', () => {
  const [plain, native, ...more] = unpackSupport(undefined, false, differs, ['overlayfs', 'erofs']);
  assert.equal(more.length, 0);
  assert.deepEqual([plain?.snapshotter, plain?.differs], [undefined, [walking, erofs]]);
  assert.deepEqual([native?.snapshotter, native?.differs], ['erofs', [erofs, walking]]);
  assert.ok(plain?.matcher.match(foreign));
  assert.ok(!plain?.matcher.match(withFeature));
  assert.ok(native?.matcher.match(withFeature));
  assert.equal(unpackSupport(undefined, false, differs, ['overlayfs']).length, 1);
  const [checked] = unpackSupport(undefined, true, differs, []);
  assert.ok(checked?.matcher.match(host) && !checked.matcher.match(foreign));
});

test('a configuration names platform, snapshotter, differ and types; what is not there fails unless it is optional', () => {
  const config = {
    platform: 'linux/s390x',
    snapshotter: 'native',
    differ: 'erofs',
    config_type: 'c',
    layer_types: ['l'],
  };
  const [support] = unpackSupport([config], true, differs, ['native']);
  assert.ok(support?.matcher.match(foreign) && !support.matcher.match(host));
  const { matcher: _, ...rest } = support ?? assert.fail();
  assert.deepEqual(rest, { snapshotter: 'native', differs: [erofs], configType: 'c', layerTypes: ['l'] });
  assert.deepEqual(unpackSupport([], false, differs, []), []);
  for (const bad of [{ snapshotter: 'none' }, { differ: 'none' }, { platform: 'no platform' }]) {
    assert.throws(() => unpackSupport([bad], false, differs, ['native']), { code: Code.InvalidArgument });
  }
  for (const away of [{ snapshotter: 'none' }, { differ: 'none' }]) {
    assert.deepEqual(unpackSupport([{ ...away, optional: true }], false, differs, ['native']), []);
  }
});
