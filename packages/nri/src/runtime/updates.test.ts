import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import {
  type Container,
  ContainerSchema,
  Field,
  type SynchronizeRequest,
  SynchronizeRequestSchema,
  type SynchronizeResponse,
  SynchronizeResponseSchema,
  ValidateContainerAdjustmentRequestSchema,
} from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { resources, update } from '../resources.ts';
import { UpdateCollector } from './collect-updates.ts';
import { type DefaultValidatorSettings, validateByDefault } from './default-validator.ts';
import { synchronizeInChunks } from './synchronize.ts';

test('updates of several plugins add up; of what two set the first is kept where failure does not matter', () => {
  const collector = new UpdateCollector();
  collector.begin('asked', resources({ cpu: { shares: 1, quota: 2 } }));
  collector.add([update('asked', { cpu: { shares: 5 } }), update('other', { pids: 9 })], [], '10-one');
  collector.add([update('other', { memory: { limit: 7 } })], [], '20-two');
  collector.add([update('other', { memory: { limit: 8 }, cpu: { shares: 1 } }, true)], [], '30-three');
  const { cpu } = collector.resourcesOf('asked')!;
  assert.deepEqual([cpu?.shares?.value, cpu?.quota?.value], [5n, 2n]);
  const other = collector.resourcesOf('other')!;
  assert.deepEqual([other.pids?.limit, other.memory?.limit?.value, other.cpu], [9n, 7n, undefined]);
  assert.throws(
    () => collector.add([update('asked', { cpu: { shares: 6 } })], [], '30-three'),
    /"30-three" and "10-one" both tried to set CPUShares/,
  );
});

test('a container that is being made is not updated', () => {
  const collector = new UpdateCollector(undefined, 'new');
  assert.throws(() => collector.add([update('new', {})], [], '10-one'), /asked update of "new" during creation/);
});

test('all there is goes in messages of a size, and a plugin that takes one only is told so', async () => {
  const containers = Array.from({ length: 50 }, (_, at) =>
    create(ContainerSchema, { id: `c${at}`, env: ['x'.repeat(1000)] }),
  ) as Container[];
  const seen: SynchronizeRequest[] = [];
  const takes = async (request: SynchronizeRequest): Promise<SynchronizeResponse> => {
    seen.push(create(SynchronizeRequestSchema, request));
    return create(SynchronizeResponseSchema, {
      more: request.more,
      update: request.more ? [] : [update('c1', { pids: 1 })],
    });
  };
  const updates = await synchronizeInChunks([], containers, takes, 10_000);
  assert.equal(updates.length, 1);
  assert.equal(seen.length, 6);
  assert.deepEqual(
    seen.map(({ more }) => more),
    [true, true, true, true, true, false],
  );
  assert.deepEqual(
    seen.flatMap((request) => request.containers.map(({ id }) => id)),
    containers.map(({ id }) => id),
  );
  await assert.rejects(
    synchronizeInChunks([], containers, async () => create(SynchronizeResponseSchema), 10_000),
    /does not handle split sync requests/,
  );
});

const off: DefaultValidatorSettings = {
  enable: true,
  reject_oci_hook_adjustment: false,
  reject_runtime_default_seccomp_adjustment: false,
  reject_unconfined_seccomp_adjustment: false,
  reject_custom_seccomp_adjustment: false,
  reject_namespace_adjustment: false,
  reject_sysctl_adjustment: false,
  required_plugins: [],
  tolerate_missing_plugins_annotation: '',
};

test('the default validator refuses what its settings say, and names who', async () => {
  const request = (annotations: Record<string, string> = {}) =>
    create(ValidateContainerAdjustmentRequestSchema, {
      pod: { annotations },
      container: { id: 'c', name: 'main', linux: { seccompProfile: { profileType: 0 } } },
      owners: {
        owners: {
          c: {
            simple: { [Field.OciHooks]: '10-a,20-b', [Field.SeccompPolicy]: '10-a' },
            compound: {
              [Field.Namespace]: { owners: { pid: '20-b' } },
              [Field.Sysctl]: { owners: { 'net.x': '20-b' } },
            },
          },
        },
      },
      plugins: [{ name: 'a', index: '10' }],
    });
  await validateByDefault(request(), off);
  const refused: [Partial<DefaultValidatorSettings>, RegExp, Record<string, string>?][] = [
    [{ reject_oci_hook_adjustment: true }, /plugins "10-a,20-b" attempted restricted OCI hook injection/],
    [{ reject_runtime_default_seccomp_adjustment: true }, /plugin 10-a attempted restricted runtime default seccomp/],
    [{ reject_namespace_adjustment: true }, /"20-b" \(namespace "pid"\)/],
    [{ reject_sysctl_adjustment: true }, /"20-b" \(sysctl "net.x"\)/],
    [{ required_plugins: ['a', '10-a', 'c'] }, /required plugin "c" not present/],
    [{}, /required plugins "d,e" not present/, { 'required-plugins.noderesource.dev/container.main': '[d, e]' }],
  ];
  for (const [settings, message, annotations] of refused) {
    await assert.rejects(
      validateByDefault(request(annotations), { ...off, ...settings }),
      (error: Error) => hasCode(error, Code.PermissionDenied) && message.test(error.message),
      String(message),
    );
  }
  await assert.rejects(
    validateByDefault(request({ 'required-plugins.noderesource.dev': '{a: b}' }), off),
    /no list of names/,
  );
  const tolerant = { ...off, required_plugins: ['c'], tolerate_missing_plugins_annotation: 'tolerate.test' };
  await validateByDefault(request({ 'tolerate.test/pod': 'true' }), tolerant);
  await validateByDefault(request(), { ...off, reject_unconfined_seccomp_adjustment: true });
});
