// What runtime options and the environment ask of the shim itself.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { packAny } from '@gantry/api';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { ShimLab } from './testing/shim-lab.ts';

const skip = (await ShimLab.unable('runc')) ?? false;

test('a cgroup for the shim, and owners for the streams', { skip }, async () => {
  const lab = await ShimLab.open('runc');
  try {
    const id = 'options';
    const bundle = lab.bundle(id, { args: ['sleep', '1000'], without: ['pid'] });
    const { task, shimPid } = await lab.start(id);
    const fifos = lab.fifos(id);
    const shimCgroup = `/gantry-shim-lab-${process.pid}/shim`;
    const root = path.join(lab.directory, 'state');
    const options = packAny(OptionsSchema, { binaryName: 'runc', root, shimCgroup, ioUid: 1234, ioGid: 4321 });
    const { pid } = await task.create({ id, bundle, rootfs: lab.rootfsMounts, options, ...fifos });
    assert.match(readFileSync(`/proc/${shimPid}/cgroup`, 'utf8'), new RegExp(`:${shimCgroup}$`, 'm'));
    assert.doesNotMatch(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), new RegExp(`${shimCgroup}$`, 'm'));
    for (const fd of [1, 2]) {
      // Their user is the container's in the end: runc sees to that.
      assert.equal(statSync(`/proc/${pid}/fd/${fd}`).gid, 4321, `descriptor ${fd}`);
    }
    const kept = JSON.parse(readFileSync(path.join(bundle, 'options.json'), 'utf8')) as Record<string, unknown>;
    assert.equal(kept['shim_cgroup'], shimCgroup);
    assert.equal(kept['io_uid'], 1234);
    await task.start({ id });
    await task.kill({ id, signal: 9 });
    await task.wait({ id });
    await task.delete({ id });
  } finally {
    await lab.close();
  }
});

test('core scheduling: a domain for each container, or a word of why not', { skip }, async () => {
  const lab = await ShimLab.open('runc');
  try {
    const id = 'core';
    const bundle = lab.bundle(id, { args: ['sleep', '1000'] });
    const { task } = await lab.start(id, { SCHED_CORE: '1' });
    const none = { stdin: '', stdout: '', stderr: '' };
    const create = task.create({ id, bundle, rootfs: lab.rootfsMounts, options: lab.options, ...none });
    try {
      await create;
    } catch (error) {
      // EINVAL: the kernel was built without it; ENODEV: one thread a core.
      assert.match((error as Error).message, /enable sched core support: prctl: (invalid argument|no such device)/);
      assert.ok(!existsSync(path.join(bundle, 'gantry-shim.json')), 'nothing is left');
      return;
    }
    await task.start({ id });
    await task.exec({ id, execId: 'e', spec: lab.execSpec(['true']), ...none });
    await task.start({ id, execId: 'e' });
    assert.equal((await task.wait({ id, execId: 'e' })).exitStatus, 0);
    await task.kill({ id, signal: 9 });
    await task.wait({ id });
    await task.delete({ id });
  } finally {
    await lab.close();
  }
});

test('systemd’s cgroups: the runtime is told, and says if there is no systemd', { skip }, async () => {
  const lab = await ShimLab.open('runc');
  try {
    const id = 'systemd';
    const bundle = lab.bundle(id, { args: ['true'], cgroupsPath: 'system.slice:gantry:x' });
    const { task } = await lab.start(id);
    const root = path.join(lab.directory, 'state');
    const options = packAny(OptionsSchema, { binaryName: 'runc', root, systemdCgroup: true });
    const create = task.create({ id, bundle, rootfs: lab.rootfsMounts, options });
    if (existsSync('/run/systemd/system')) await create;
    else await assert.rejects(create, /systemd not running on this host, cannot use systemd cgroups manager/);
    await task.delete({ id }).catch(() => undefined);
  } finally {
    await lab.close();
  }
});
