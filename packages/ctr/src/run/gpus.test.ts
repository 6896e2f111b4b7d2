import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gpuDevices } from './gpus.ts';

test('GPUs by the names of whoever describes them', () => {
  assert.deepEqual(gpuDevices(['amd.com/gpu=0', 'example.com/x=y'], ['0', '2']), ['amd.com/gpu=0', 'amd.com/gpu=2']);
  assert.deepEqual(gpuDevices(['amd.com/gpu=0', 'nvidia.com/gpu=0'], ['1']), ['nvidia.com/gpu=1']);
  assert.throws(() => gpuDevices(['example.com/x=y'], ['0']), /no known GPU vendor detected/);
  assert.throws(() => gpuDevices(['nvidia.com/gpu=0'], ['all']), /invalid value "all"/);
});
