import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { SELinuxOptionSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { relabel } from './relabel.ts';
import { Selinux } from './selinux.ts';

const root = mkdtempSync(path.join(tmpdir(), 'gantry-selinux-'));
after(() => rmSync(root, { recursive: true }));
const put = (file: string, text: string): void => {
  mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
  writeFileSync(path.join(root, file), text);
};
put('sys/fs/selinux/enforce', '1');
put('proc/self/attr/current', 'system_u:system_r:container_runtime_t:s0\0');
put('etc/selinux/config', '# which\nSELINUX=enforcing\nSELINUXTYPE=targeted\n');
put(
  'etc/selinux/targeted/contexts/lxc_contexts',
  `process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
kvm_process = "system_u:system_r:container_kvm_t:s0"
`,
);

const asked = (options: object) => create(SELinuxOptionSchema, options);
const make = (more: object = {}) => new Selinux({ enabled: true, categoryRange: 1024, root, ...more });

test('a pod gets a pair of categories that no other has, for its processes and its files', () => {
  // Three categories are three pairs.
  const selinux = make({ categoryRange: 3 });
  const labels = [1, 2, 3].map(() => selinux.labels(undefined));
  assert.deepEqual(labels.map(({ process }) => process).sort(), [
    'system_u:system_r:container_t:s0:c0,c1',
    'system_u:system_r:container_t:s0:c0,c2',
    'system_u:system_r:container_t:s0:c1,c2',
  ]);
  for (const { process, mount } of labels)
    assert.equal(mount, `system_u:object_r:container_file_t:${process.split(':').slice(3).join(':')}`);
  selinux.release(labels[1]!.process);
  assert.equal(selinux.labels(undefined).process, labels[1]!.process);
  const next = make({ categoryRange: 3 });
  for (const { process } of labels.slice(1)) next.reserve(process);
  assert.equal(next.labels(undefined).process, labels[0]!.process);
});

test('what is asked for goes before the policy’s, and a container without a word has its pod’s', () => {
  const selinux = make();
  const options = asked({ user: 'u', role: 'r', type: 'spc_t', level: 's0:c4,c5' });
  const pod = selinux.labels(options);
  assert.deepEqual(pod, { process: 'u:r:spc_t:s0:c4,c5', mount: 'u:object_r:container_file_t:s0:c4,c5' });
  assert.deepEqual(selinux.labels(undefined, pod.process), pod);
  const own = selinux.labels(asked({ level: 's0:c7' }), pod.process);
  assert.equal(own.process, 'system_u:system_r:container_t:s0:c7');
  assert.equal(selinux.forVirtualMachine(own.process), 'system_u:system_r:container_kvm_t:s0:c7');
});

test('levels are checked wherever it runs', () => {
  for (const enabled of [true, false]) {
    const selinux = make({ enabled });
    for (const level of ['s0', 's0-s1', 's0:c1', 's0:c1.c5', 's0:c1,c2', 's0-s5:c1,c2.c1000'])
      assert.ok(selinux.labels(asked({ level })).process.endsWith(enabled ? level : ''), level);
    for (const level of ['0', 's0:c', 's10', 's0:c1,', 's0:c12345', 's0:c1;c2', 'c1'])
      assert.throws(() => selinux.labels(asked({ level })), /the format of 'level' ".*" is not correct/, level);
  }
});

test('without SELinux, or with it off, there are no labels', () => {
  for (const selinux of [make({ enabled: false }), make({ root: '/nowhere' })]) {
    assert.deepEqual(selinux.labels(undefined), { process: '', mount: '' });
    assert.deepEqual(selinux.labels(asked({ type: 'spc_t' })), { process: '', mount: '' });
  }
  assert.equal(make({ enabled: false }).supported, true);
});

test('a tree is labelled, links in it are not followed, and the machine’s own directories are refused', async () => {
  const tree = path.join(root, 'tree');
  put('tree/deep/file', '');
  put('outside', '');
  symlinkSync(path.join(root, 'outside'), path.join(tree, 'link'));
  const seen: string[] = [];
  await relabel(tree, 'a:b:c:s0', (opened, value) => {
    assert.equal(value.toString(), 'a:b:c:s0\0');
    seen.push(path.relative(root, readlinkSync(opened)));
  });
  assert.deepEqual(seen.sort(), ['tree', 'tree/deep', 'tree/deep/file', 'tree/link']);
  const never = () => assert.fail('it is labelled');
  await assert.rejects(relabel('/etc/', 'a:b:c', never), /SELinux relabeling of \/etc\/ is not allowed/);
  await relabel('/etc', '', never);
  await relabel(tree, 'a:b:c', () => {
    throw Object.assign(new Error('no'), { code: 'ENOTSUP' });
  });
});
