import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { defaultCapabilities } from './capabilities.ts';
import { defaultSpec } from './default-spec.ts';
import { defaultSeccomp } from './seccomp-default.ts';
import {
  replaceEnvironment,
  withAddedCapabilities,
  withDroppedCapabilities,
  withHostNetwork,
  withImageConfig,
  withPrivileged,
} from './spec-options.ts';

const facts = path.resolve(import.meta.dirname, '../../../../../shared/facts');
const missing = existsSync(facts) ? false : 'the recorded facts are not beside this checkout';

test('a plain container equals what containerd 2.3.4 made', { skip: missing }, () => {
  const recorded = JSON.parse(readFileSync(path.join(facts, 'container-info-ctr-run.json'), 'utf8')).Spec;
  const spec = defaultSpec('facts', 'f1');
  withImageConfig(spec, { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] }, [
    'sleep',
    '30',
  ]);
  spec.process!.user.additionalGids = [0];
  spec.linux!.resources!.cpu = { shares: 1024 };
  assert.deepEqual(spec, recorded);
});

test('the default seccomp profile equals what containerd 2.3.4 printed', { skip: missing }, () => {
  const recorded = JSON.parse(readFileSync(path.join(facts, 'seccomp-default.json'), 'utf8'));
  const ours = defaultSeccomp(defaultCapabilities, 'x64');
  const flatten = (profile: typeof ours) =>
    profile
      .syscalls!.flatMap(({ names, ...rest }) =>
        names.map((name) => JSON.stringify([name, rest.action, rest.errnoRet, rest.args])),
      )
      .sort();
  assert.deepEqual(flatten(ours), flatten(recorded));
  assert.deepEqual(ours.architectures, recorded.architectures);
});

test('variables are replaced, added and removed', () => {
  assert.deepEqual(replaceEnvironment(['A=1', 'B=2'], ['B=3', 'C=4', 'A']), ['B=3', 'C=4']);
});

test('an image entrypoint stays when arguments are given', () => {
  const spec = defaultSpec('default', 'x');
  withImageConfig(spec, { Entrypoint: ['/init'], Cmd: ['a'], WorkingDir: '/srv' }, ['b']);
  assert.deepEqual(spec.process?.args, ['/init', 'b']);
  assert.equal(spec.process?.cwd, '/srv');
});

test('capabilities are added once and dropped everywhere', () => {
  const spec = defaultSpec('default', 'x');
  withAddedCapabilities(spec, ['CAP_SYS_ADMIN', 'CAP_KILL']);
  withDroppedCapabilities(spec, ['CAP_CHOWN']);
  for (const set of ['bounding', 'effective', 'permitted'] as const) {
    const names = spec.process!.capabilities![set]!;
    assert.equal(names.filter((name) => name === 'CAP_KILL').length, 1);
    assert.ok(names.includes('CAP_SYS_ADMIN') && !names.includes('CAP_CHOWN'));
  }
});

test('privileged and host network open what they promise', () => {
  const spec = defaultSpec('default', 'x');
  withPrivileged(spec, ['CAP_SYS_ADMIN']);
  withHostNetwork(spec);
  assert.equal(spec.linux?.maskedPaths, undefined);
  assert.deepEqual(spec.mounts?.find((mount) => mount.destination === '/sys')?.options?.at(-1), 'rw');
  assert.ok(!spec.linux?.namespaces?.some((namespace) => namespace.type === 'network'));
  assert.ok(spec.mounts?.some((mount) => mount.destination === '/etc/resolv.conf'));
});
