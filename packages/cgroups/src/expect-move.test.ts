import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { moveToOwnGroup } from './expect-move.ts';

function tree(t: { after(work: () => void): void }, cgroup: string, mountinfo: string): { root: string; proc: string } {
  const top = mkdtempSync(path.join(tmpdir(), 'gantry-move-'));
  t.after(() => rmSync(top, { recursive: true }));
  const roots = { root: path.join(top, 'cgroup'), proc: path.join(top, 'proc') };
  mkdirSync(path.join(roots.proc, 'self'), { recursive: true });
  writeFileSync(path.join(roots.proc, 'self/cgroup'), cgroup);
  writeFileSync(path.join(roots.proc, 'self/mountinfo'), mountinfo);
  return roots;
}

test('the process stays in its groups', async () => {
  const before = readFileSync('/proc/self/cgroup', 'utf8');
  await moveToOwnGroup();
  assert.equal(readFileSync('/proc/self/cgroup', 'utf8'), before);
});

test('on version 1 the move is to the own group of one hierarchy, on version 2 of the only one', async (t) => {
  const legacy = tree(
    t,
    '4:memory:/system.slice/gantry\n0::/\n',
    '30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 20 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n',
  );
  const unified = tree(t, '0::/system.slice/gantry\n', '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n');
  for (const [roots, place] of [
    [legacy, 'memory/system.slice/gantry'],
    [unified, 'system.slice/gantry'],
  ] as const) {
    mkdirSync(path.join(roots.root, place), { recursive: true });
    const file = path.join(roots.root, place, 'cgroup.procs');
    writeFileSync(file, '');
    await moveToOwnGroup(roots);
    assert.equal(readFileSync(file, 'utf8'), '0');
  }
});

test('without cgroups it is refused, and nothing is made', async (t) => {
  const roots = tree(t, '0::/\n', '');
  await assert.rejects(moveToOwnGroup(roots), /no cgroups are mounted/);
  const gone = tree(t, '0::/gone\n', '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n');
  await assert.rejects(moveToOwnGroup(gone), { code: 'ENOENT' });
});
