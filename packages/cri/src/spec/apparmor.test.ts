import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { SecurityProfileSchema, SecurityProfile_ProfileType as Type } from '@gantry/api/gen/cri/v1/api_pb.js';
import { appArmorProfile, defaultAppArmorProfile, hasAppArmor } from './apparmor.ts';

const root = mkdtempSync(path.join(tmpdir(), 'gantry-apparmor-'));
after(() => rmSync(root, { recursive: true }));
const put = (file: string, text: string): void => {
  mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
  writeFileSync(path.join(root, file), text);
};
const profile = (profileType: Type, localhostRef = '') => create(SecurityProfileSchema, { profileType, localhostRef });

test('AppArmor is there if the kernel has it on and the parser is installed, and not in a container', () => {
  assert.equal(hasAppArmor(root, {}), false);
  put('sys/kernel/security/apparmor/profiles', '');
  put('sys/module/apparmor/parameters/enabled', 'Y\n');
  assert.equal(hasAppArmor(root, {}), false);
  put('sbin/apparmor_parser', '');
  assert.equal(hasAppArmor(root, {}), true);
  assert.equal(hasAppArmor(root, { container: 'lxc' }), false);
  put('sys/module/apparmor/parameters/enabled', 'N\n');
  assert.equal(hasAppArmor(root, {}), false);
});

test('without it who names a profile is refused, be it the default one, and who says nothing has none', async () => {
  assert.equal(await appArmorProfile(undefined, '', false, false), undefined);
  assert.equal(await appArmorProfile(profile(Type.Unconfined), '', false, false), undefined);
  assert.equal(await appArmorProfile(undefined, 'unconfined', false, false), undefined);
  for (const own of [profile(Type.Localhost, 'localhost/mine'), profile(Type.RuntimeDefault)])
    await assert.rejects(appArmorProfile(own, '', false, false), /apparmor is not supported/);
  for (const name of ['localhost/mine', 'runtime/default'])
    await assert.rejects(appArmorProfile(undefined, name, false, false), /apparmor is not supported/);
  await assert.rejects(appArmorProfile(undefined, 'mine', false, true), /invalid profile "mine"/);
});

test('with it, what is privileged or unconfined has none, and one that is not loaded is an error', async () => {
  assert.equal(await appArmorProfile(undefined, '', true, true), undefined);
  assert.equal(await appArmorProfile(profile(Type.Unconfined), '', false, true), undefined);
  await assert.rejects(
    appArmorProfile(profile(Type.Localhost, 'gantry-no-such'), '', false, true),
    /apparmor profile not found gantry-no-such/,
  );
});

test('the default one is loaded when it is first needed', {
  skip: hasAppArmor() ? false : 'no AppArmor here',
}, async () => {
  assert.equal(await appArmorProfile(undefined, '', false, true), defaultAppArmorProfile);
});
