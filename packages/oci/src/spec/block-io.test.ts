import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blockIoClasses } from './block-io.ts';

const disks = (pattern: string) => (pattern === '/dev/sd*' ? [8, 24].map((minor) => ({ major: 8, minor })) : []);

test('classes of weights and throttles', () => {
  const classes = blockIoClasses(
    {
      Classes: {
        slow: [
          { Weight: '80' },
          { Devices: ['/dev/sd*'], ThrottleReadBps: '60M', ThrottleWriteIOPS: '1k', Weight: '50' },
          { Devices: ['/dev/none'], ThrottleReadBps: '1' },
        ],
        none: [],
      },
    },
    disks,
  );
  const both = (value: object) => [8, 24].map((minor) => ({ major: 8, minor, ...value }));
  assert.deepEqual(classes.get('slow'), {
    weight: 80,
    weightDevice: both({ weight: 50 }),
    throttleReadBpsDevice: both({ rate: 60_000_000 }),
    throttleWriteIOPSDevice: both({ rate: 1000 }),
  });
  assert.deepEqual(classes.get('none'), {});
  assert.equal(blockIoClasses(null, disks).size, 0);
});

test('what is wrong is said', () => {
  const of = (entry: object) => () => blockIoClasses({ Classes: { x: [entry] } }, disks);
  assert.throws(of({ Weight: '9' }), /value of "Weight" \(9\) smaller than minimum \(10\)/);
  assert.throws(of({ Weight: '1001' }), /bigger than maximum/);
  assert.throws(of({ Devices: ['/dev/sd*'], ThrottleReadBps: 'much' }), /syntax error in "ThrottleReadBps"/);
  assert.throws(of({ ThrottleReadBps: '1' }), /Devices not listed/);
  assert.throws(of({ Wait: '1' }), /unknown field "Wait"/);
});
