import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { removeState } from './remove-state.ts';

/** A hierarchy in which groups can be made: version 2's, or the first of version 1. */
function hierarchy(): string | undefined {
  const top = '/sys/fs/cgroup';
  if (existsSync(path.join(top, 'cgroup.procs'))) return top;
  const first = existsSync(top) && readdirSync(top).find((name) => existsSync(path.join(top, name, 'cgroup.procs')));
  return first ? path.join(top, first) : undefined;
}

const top = hierarchy();
const skip = process.geteuid?.() !== 0 ? 'needs root' : top === undefined ? 'needs cgroups' : false;

describe('removing the state of an ended container', { skip }, () => {
  const id = `gantry-remove-state-${process.pid}`;
  let root: string;
  let group: string;
  const stateFile = () => path.join(root, id, 'state.json');
  const write = (name: string, state: object) => writeFileSync(path.join(root, id, name), JSON.stringify(state));
  const remove = (binary: string, more: { pid?: number; systemdCgroup?: boolean; cgroups?: string[] } = {}) =>
    removeState({
      id,
      pid: more.pid ?? 7,
      runtime: { binary, root, systemdCgroup: more.systemdCgroup ?? false },
      cgroups: more.cgroups,
    });

  beforeEach(() => {
    root = mkdtempSync(path.join(os.tmpdir(), 'gantry-remove-state-'));
    group = path.join(top!, id);
    mkdirSync(path.join(root, id));
    mkdirSync(group, { recursive: true });
  });
  afterEach(() => {
    rmSync(root, { recursive: true });
    for (const directory of [path.join(group, 'below'), group]) if (existsSync(directory)) rmdirSync(directory);
  });

  test("runc's: groups and directory go, groups that are gone already are well", async () => {
    write('state.json', { init_process_pid: 7, cgroup_paths: { a: group, b: path.join(top!, `${id}-absent`) } });
    assert.equal(await remove('/usr/sbin/runc'), true);
    assert.equal(existsSync(group), false);
    assert.equal(existsSync(path.join(root, id)), false);
  });

  test("crun's, where the kernel told the groups", async (context) => {
    if (existsSync('/sys/fs/cgroup/unified')) return context.skip('both versions are mounted here');
    write('status', { pid: 7, 'cgroup-path': `/${id}` });
    assert.equal(await remove('crun'), false, 'nobody knows the groups');
    assert.equal(await remove('crun', { cgroups: [path.join(top!, 'other')] }), false, 'another group');
    assert.equal(await remove('crun', { cgroups: [group] }), true);
    assert.equal(existsSync(group), false);
    assert.equal(existsSync(path.join(root, id)), false);
  });

  test('a group with another beneath is left to the runtime, with the state that names it', async () => {
    mkdirSync(path.join(group, 'below'));
    write('state.json', { init_process_pid: 7, cgroup_paths: { a: group } });
    assert.equal(await remove('runc'), false);
    assert.ok(existsSync(stateFile()));
  });

  test('nothing is touched where more is to be done, or where the state is not what it should be', async () => {
    const elsewhere = path.join(root, 'elsewhere');
    mkdirSync(elsewhere);
    const state = { init_process_pid: 7, cgroup_paths: { a: group } };
    write('state.json', state);
    assert.equal(await remove('runsc'), false, 'a runtime that is not known');
    assert.equal(await remove('runc', { systemdCgroup: true }), false, 'systemd holds the group');
    assert.equal(await remove('runc', { pid: 8 }), false, 'a container of the same name');
    for (const other of [
      { ...state, intel_rdt_path: '/sys/fs/resctrl/x' },
      { ...state, rootless: true },
      { ...state, cgroup_paths: undefined },
      { ...state, cgroup_paths: { a: elsewhere } },
      { ...state, cgroup_paths: { a: `/sys/fs/cgroup/../../..${elsewhere}` } },
    ]) {
      write('state.json', other);
      assert.equal(await remove('runc'), false, JSON.stringify(other));
    }
    writeFileSync(stateFile(), 'nonsense');
    assert.equal(await remove('runc'), false, 'not JSON');
    assert.ok(existsSync(group) && existsSync(elsewhere) && existsSync(stateFile()));
  });
});
