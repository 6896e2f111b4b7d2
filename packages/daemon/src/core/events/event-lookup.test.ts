import assert from 'node:assert/strict';
import { test } from 'node:test';
import { packAny } from '@gantry/api';
import { ContainerCreateSchema } from '@gantry/api/gen/events/container_pb.js';
import { TaskExitSchema } from '@gantry/api/gen/events/task_pb.js';
import { eventFields } from './event-lookup.ts';

const envelope = { timestamp: { seconds: 0n, nanos: 0 }, namespace: 'a', topic: '/a/b' };

test('events are told field by field; what clients may have put in is named, not read', () => {
  const options = { typeUrl: 'type.example.com/nobody.knows.This', value: new Uint8Array([255, 255]) };
  const created = packAny(ContainerCreateSchema, { id: 'web', runtime: { name: 'io.containerd.runc.v2', options } });
  assert.deepEqual(eventFields({ ...envelope, event: created }), {
    id: 'web',
    runtime: { name: 'io.containerd.runc.v2', options: 'type.example.com/nobody.knows.This' },
  });
  const exited = packAny(TaskExitSchema, { containerId: 'web', pid: 7, exitedAt: { seconds: 1n, nanos: 0 } });
  assert.deepEqual(eventFields({ ...envelope, event: exited }), {
    container_id: 'web',
    pid: 7,
    exited_at: '1970-01-01T00:00:01Z',
  });
  assert.equal(eventFields({ ...envelope, event: options as never }), undefined);
});
