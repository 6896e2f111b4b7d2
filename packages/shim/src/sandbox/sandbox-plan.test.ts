import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Code, hasCode, packAny } from '@gantry/api';
import { NamespaceMode, PodSandboxConfigSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { pauseProgram } from './pause-program.ts';
import { pinNamespaces } from './pinned-namespaces.ts';
import { planSandbox } from './sandbox-plan.ts';

const bundle = mkdtempSync(path.join(os.tmpdir(), 'gantry-plan-'));
after(() => rmSync(bundle, { recursive: true, force: true }));

const plan = (spec: unknown, netns = '') => {
  writeFileSync(path.join(bundle, 'config.json'), JSON.stringify(spec));
  return planSandbox('s', bundle, netns, undefined);
};
const namespaces = (...types: string[]) => ({ linux: { namespaces: types.map((type) => ({ type })) } });

test('a sandbox has a process where the spec says so, or where a pid namespace needs one', async () => {
  assert.equal((await plan({ process: { args: ['/pause'] } })).kind, 'process');
  assert.equal((await plan(namespaces('pid', 'ipc'))).kind, 'pause');
  assert.equal((await plan(namespaces('ipc', 'uts'))).kind, 'pinned');
  const none = await plan({});
  assert.equal(none.kind, 'pinned');
  assert.deepEqual(none.spec.linux?.namespaces, [{ type: 'network' }, { type: 'ipc' }, { type: 'uts' }]);
  await assert.rejects(plan(namespaces('user')), (error) => hasCode(error, Code.InvalidArgument));
  await assert.rejects(plan([]), (error) => hasCode(error, Code.InvalidArgument));
});

test('the network that a client made is the sandbox’s', async () => {
  const path = '/run/netns/pod';
  assert.deepEqual((await plan(namespaces('uts', 'network'), path)).spec.linux?.namespaces, [
    { type: 'uts' },
    { type: 'network', path },
  ]);
  const own = { linux: { namespaces: [{ type: 'network', path: '/other' }] } };
  assert.deepEqual((await plan(own, path)).spec.linux?.namespaces, [{ type: 'network', path: '/other' }]);
});

test('a pod’s configuration says what its sandbox is like', async () => {
  rmSync(path.join(bundle, 'config.json'), { force: true });
  const pod = (config: object) => planSandbox('s', bundle, '/run/netns/pod', packAny(PodSandboxConfigSchema, config));
  const { kind, spec } = await pod({
    hostname: 'web',
    linux: { cgroupParent: '/pods/p1', sysctls: { 'net.core.somaxconn': '7' } },
  });
  assert.deepEqual(
    [kind, spec.hostname, spec.linux?.cgroupsPath, spec.linux?.sysctl],
    ['pause', 'web', '/pods/p1/s', { 'net.core.somaxconn': '7' }],
  );
  assert.deepEqual(spec.linux?.namespaces, [
    { type: 'mount' },
    { type: 'network', path: '/run/netns/pod' },
    { type: 'uts' },
    { type: 'pid' },
    { type: 'ipc' },
  ]);
  const { NODE } = NamespaceMode;
  const host = await pod({
    hostname: 'web',
    linux: { securityContext: { namespaceOptions: { network: NODE, pid: NODE, ipc: NODE } } },
  });
  assert.deepEqual([host.spec.linux?.namespaces, host.spec.hostname], [[{ type: 'mount' }], undefined]);
});

test('no kernel setting is written that is not of the sandbox’s own namespaces', async () => {
  const wrong = ['kernel.panic', 'net.ipv4./..', 'net...ipv4', 'fs.mqueue.msg_max', '/etc/passwd', ''];
  for (const name of wrong)
    await assert.rejects(pinNamespaces(bundle, ['network'], { sysctl: { [name]: '1' } }), (error) =>
      hasCode(error, Code.InvalidArgument),
    );
});

test('the pause program sleeps, with its children’s signal ignored, and is small', async () => {
  for (const architecture of ['x64', 'arm64']) {
    const program = pauseProgram(architecture);
    assert.equal(program.toString('latin1', 1, 4), 'ELF');
    assert.ok(program.length < 250);
  }
  assert.throws(
    () => pauseProgram('mips'),
    (error) => hasCode(error, Code.Unimplemented),
  );
  const file = path.join(bundle, 'pause');
  writeFileSync(file, pauseProgram(), { mode: 0o755 });
  const child = spawn(file, { stdio: 'ignore' });
  try {
    const ignored = () =>
      BigInt(`0x${/^SigIgn:\s+(\w+)/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]}`);
    const end = Date.now() + 60_000;
    while ((ignored() & (1n << 16n)) === 0n) {
      assert.ok(child.exitCode === null && Date.now() < end);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal(child.exitCode, null);
  } finally {
    child.kill('SIGKILL');
  }
});
