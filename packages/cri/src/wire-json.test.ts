import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { ContainerConfigSchema } from '@gantry/api/gen/cri/v1/api_pb.js';
import { fromJson, jsonWith, toJson } from './wire-json.ts';

test('messages are written by the names of the .proto file, with what is set only', () => {
  const config = create(ContainerConfigSchema, {
    metadata: { name: 'c', attempt: 0 },
    labels: { a: 'b' },
    envs: [{ key: 'K', value: Buffer.from('V') }],
    mounts: [{ containerPath: '/a', uidMappings: [{ hostId: 1, length: 2 }] }],
    linux: {
      resources: { memoryLimitInBytes: 9_007_199_254_740_993n, cpuShares: 5n },
      securityContext: { runAsUser: {} },
    },
  });
  const json = toJson(ContainerConfigSchema, config);
  assert.deepEqual(json, {
    metadata: { name: 'c' },
    labels: { a: 'b' },
    envs: [{ key: 'K', value: 'V' }],
    mounts: [{ container_path: '/a', uidMappings: [{ host_id: 1, length: 2 }] }],
    linux: {
      resources: { memory_limit_in_bytes: 9_007_199_254_740_993n, cpu_shares: 5 },
      security_context: { run_as_user: {} },
    },
  });
  assert.deepEqual(create(ContainerConfigSchema, fromJson(ContainerConfigSchema, json)), config);
});

test('members that are JSON already stay as they are', () => {
  const spec = Buffer.from('{"n":18446744073709551615}');
  assert.equal(jsonWith({ a: 1 }, { spec, none: undefined }), '{"a":1,"spec":{"n":18446744073709551615},"none":null}');
  assert.equal(jsonWith({}, { spec }), '{"spec":{"n":18446744073709551615}}');
});
