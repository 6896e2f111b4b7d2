import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { packAny } from '@gantry/api';
import { BootstrapParamsSchema, BootstrapResultSchema } from '@gantry/api/gen/runtime/bootstrap/v1/bootstrap_pb.js';
import { OptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { readStartParameters, writeBootstrapResult } from './bootstrap.ts';

const flags = { id: 'a1', namespace: 'default', address: '/c.sock', socket: '' };
const result = { version: 3, address: 'unix:///run/s/x', protocol: 'ttrpc' as const };
const options = packAny(OptionsSchema, { binaryName: 'crun' });

test('containerd 1.6: options on stdin, an address line back', () => {
  const parameters = readStartParameters(Buffer.from(toBinary(AnySchema, options)), flags, { TTRPC_ADDRESS: '/t' });
  assert.deepEqual([parameters.answer, parameters.maxVersion, parameters.ttrpcAddress], ['address', 2, '/t']);
  assert.match(parameters.optionsKey, /^containerd\.runc\.v1\.Options\n/);
  assert.equal(writeBootstrapResult(result, 'address').toString(), 'unix:///run/s/x');
  assert.equal(readStartParameters(Buffer.alloc(0), flags, {}).optionsKey, '');
});

test('containerd 1.7 to 2.2: JSON of the version it can take', () => {
  assert.equal(readStartParameters(Buffer.alloc(0), flags, { MAX_SHIM_VERSION: '2' }).maxVersion, 2);
  const parameters = readStartParameters(
    Buffer.alloc(0),
    { ...flags, namespace: '' },
    { MAX_SHIM_VERSION: '7', NAMESPACE: 'n' },
  );
  assert.deepEqual([parameters.answer, parameters.maxVersion, parameters.namespace], ['json', 3, 'n']);
  assert.deepEqual(JSON.parse(writeBootstrapResult(result, 'json').toString()), result);
});

test('containerd 2.3: parameters and result as protobuf', () => {
  const message = create(BootstrapParamsSchema, {
    instanceId: 'a1',
    namespace: 'other',
    logLevel: -4,
    containerdVersion: '2.3.4',
    containerdTtrpcAddress: '/b.ttrpc',
    containerdGrpcAddress: '/b.sock',
    containerdBinary: '/bin/containerd',
    extensions: [{ value: options }],
    socketDir: '/run/containerd/s',
  });
  const stdin = Buffer.from(toBinary(BootstrapParamsSchema, message));
  const parameters = readStartParameters(stdin, flags, { MAX_SHIM_VERSION: '2' });
  assert.equal(parameters.answer, 'protobuf');
  assert.equal(parameters.maxVersion, 3);
  assert.equal(parameters.namespace, 'default');
  assert.equal(parameters.ttrpcAddress, '/b.ttrpc');
  assert.equal(parameters.socketDir, '/run/containerd/s');
  assert.equal(
    parameters.optionsKey,
    readStartParameters(Buffer.from(toBinary(AnySchema, options)), flags, {}).optionsKey,
  );
  const read = fromBinary(BootstrapResultSchema, writeBootstrapResult(result, 'protobuf'));
  assert.deepEqual([read.version, read.address, read.protocol], [3, result.address, 'ttrpc']);
});

test('bytes that are no message are no options', () => {
  const parameters = readStartParameters(Buffer.from('\xff\xff not protobuf', 'latin1'), flags, {});
  assert.deepEqual([parameters.answer, parameters.optionsKey], ['address', '']);
});
