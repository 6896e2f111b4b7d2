import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RuntimeSpec } from '@gantry/oci';
import { type Command, runCommand } from '../command.ts';
import { containerFlags, runFlags } from './spec-flags.ts';
import { specFromFlags } from './spec-from-flags.ts';

const files: Record<string, string> = {
  'etc/passwd': 'root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n',
  'etc/group': 'root:x:0:\nextra:x:44:web\n',
};

async function specOf(flags: string[], args: string[] = [], config = {}): Promise<RuntimeSpec> {
  let made: RuntimeSpec | undefined;
  const command: Command = {
    name: 'run',
    usage: '',
    flags: [...runFlags, ...containerFlags],
    run: async (invocation) => {
      made = await specFromFlags(
        invocation,
        { namespace: 'ns', id: 'c1' },
        { kind: 'image', config: { config: { Cmd: ['sh'], Env: ['PATH=/bin'], ...config } } },
        args,
        async (look) => look((file) => files[file]),
      );
    },
  };
  await runCommand(command, flags, () => undefined);
  return made!;
}

test('a plain container', async () => {
  const spec = await specOf([]);
  assert.deepEqual(spec.process?.args, ['sh']);
  assert.deepEqual(spec.process?.env, ['PATH=/bin']);
  assert.deepEqual(spec.process?.user, { uid: 0, gid: 0, additionalGids: [0] });
  assert.equal(spec.process?.noNewPrivileges, true);
  assert.deepEqual(spec.linux?.resources?.cpu, { shares: 1024 });
  assert.equal(spec.linux?.cgroupsPath, '/ns/c1');
  assert.deepEqual(Object.keys(spec), ['ociVersion', 'process', 'root', 'mounts', 'linux']);
});

test('what the image says is the default, what flags say counts', async () => {
  const spec = await specOf(['--env', 'A=b', '--env', 'PATH=/x', '--cwd', '/srv', '-t'], ['ls', '-l'], {
    Entrypoint: ['env'],
    WorkingDir: '/tmp',
    User: 'web',
  });
  assert.deepEqual(spec.process?.args, ['env', 'ls', '-l']);
  assert.deepEqual(spec.process?.env, ['PATH=/x', 'A=b', 'TERM=xterm']);
  assert.equal(spec.process?.cwd, '/srv');
  assert.equal(spec.process?.terminal, true);
  assert.deepEqual(spec.process?.user, { uid: 33, gid: 33, additionalGids: [33, 44] });
});

test('limits', async () => {
  const spec = await specOf([
    '--memory-limit',
    '1000000',
    '--cpus',
    '1.5',
    '--cpu-shares',
    '7',
    '--cpuset-cpus',
    '0-1',
  ]);
  assert.deepEqual(spec.linux?.resources?.memory, { limit: 1000000 });
  assert.deepEqual(spec.linux?.resources?.cpu, { shares: 7, quota: 150000, period: 100000, cpus: '0-1' });
  await assert.rejects(specOf(['--cpus', '1', '--cpu-quota', '5']), /used separately/);
  assert.deepEqual((await specOf(['--rlimit-nofile', '10:20'])).process?.rlimits, [
    { type: 'RLIMIT_NOFILE', hard: 20, soft: 10 },
  ]);
});

test('what protects the host', async () => {
  const spec = await specOf([
    '--cap-add',
    'CAP_SYS_PTRACE',
    '--cap-drop',
    'CAP_KILL',
    '--allow-new-privs',
    '--seccomp',
  ]);
  assert.ok(spec.process?.capabilities?.bounding?.includes('CAP_SYS_PTRACE'));
  assert.ok(!spec.process?.capabilities?.effective?.includes('CAP_KILL'));
  assert.equal(spec.process?.noNewPrivileges, undefined);
  assert.equal(spec.linux?.seccomp?.defaultAction, 'SCMP_ACT_ERRNO');
  await assert.rejects(specOf(['--cap-add', 'SYS_PTRACE']), /'CAP_' prefix/);
  const privileged = await specOf(['--privileged', '--privileged-without-host-devices']);
  assert.equal(privileged.process?.noNewPrivileges, true);
  assert.equal(privileged.linux?.maskedPaths, undefined);
  assert.deepEqual(privileged.linux?.resources?.devices, [{ allow: true, access: 'rwm' }]);
});

test('labels are annotations too, namespaces can be joined', async () => {
  const spec = await specOf([
    '--label',
    'a=b',
    '--annotation',
    'c=d',
    '--with-ns',
    'pid:/proc/1/ns/pid',
    '--hostname',
    'h',
  ]);
  assert.deepEqual(spec.annotations, { a: 'b', c: 'd' });
  assert.deepEqual(spec.linux?.namespaces?.[0], { type: 'pid', path: '/proc/1/ns/pid' });
  assert.equal(spec.hostname, 'h');
  await assert.rejects(specOf(['--with-ns', 'nothing']), /nstype:path/);
});

test('user namespaces', async () => {
  const spec = await specOf(['--uidmap', '0:1000:10', '--gidmap', '0:2000:10']);
  assert.deepEqual(spec.linux?.uidMappings, [{ containerID: 0, hostID: 1000, size: 10 }]);
  assert.deepEqual(spec.linux?.gidMappings, [{ containerID: 0, hostID: 2000, size: 10 }]);
  assert.deepEqual(spec.linux?.namespaces?.at(-1), { type: 'user' });
  await assert.rejects(specOf(['--uidmap', '0:1000:10']), /given together/);
  await assert.rejects(specOf(['--uidmap', '0-1000', '--gidmap', '0:0:1']), /invalid mapping/);
});

test('devices by their CDI name', async () => {
  await assert.rejects(
    specOf(['--device', 'no-such-vendor.com/gpu=0']),
    /unresolvable CDI devices no-such-vendor.com\/gpu=0/,
  );
  await assert.rejects(specOf(['--device', 'vendor.com/gpu']), /ENOENT/);
});
