import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { Code, hasCode } from '@gantry/api';
import {
  BootstrapParamsSchema,
  BootstrapResultSchema,
  LogLevel,
} from '@gantry/api/gen/runtime/bootstrap/v1/bootstrap_pb.js';
import { bootstrapAt, encodeStartParameters, formatBootstrap, parseBootstrap } from './bootstrap.ts';

const address = 'unix:///run/containerd/s/0123';

function message(fields: { version?: number; address?: string; protocol?: string }): Uint8Array {
  return toBinary(BootstrapResultSchema, create(BootstrapResultSchema, fields));
}

test('what a shim prints is read in all its forms', () => {
  const old = { version: 2, address, protocol: 'ttrpc' };
  assert.deepEqual(parseBootstrap(Buffer.from(`${address}\n`)), old);
  assert.deepEqual(parseBootstrap(Buffer.from(JSON.stringify({ version: 2, address }))), old);
  assert.deepEqual(parseBootstrap(Buffer.from(JSON.stringify({ version: 3, address, protocol: 'grpc' }))), {
    version: 3,
    address,
    protocol: 'grpc',
  });
  assert.deepEqual(parseBootstrap(message({ version: 3, address, protocol: 'TTRPC' })), {
    version: 3,
    address,
    protocol: 'ttrpc',
  });
  const kept = parseBootstrap(message({ version: 2, address, protocol: 'grpc' }));
  assert.deepEqual(parseBootstrap(formatBootstrap(kept)), kept);
});

test('what is none of them is refused, with its reason', () => {
  const { InvalidArgument, Unimplemented } = Code;
  for (const [output, code, text] of [
    ['', InvalidArgument, /no address/],
    [' \n', InvalidArgument, /no address/],
    ['{"version":', InvalidArgument, /bad bootstrap parameters/],
    ['{"version":3}', InvalidArgument, /no address/],
    [Buffer.of(0x08, 0x03, 0x12, 0x7f, 0x41), InvalidArgument, /bad bootstrap parameters/],
    [message({ version: 3 }), InvalidArgument, /no address/],
    [JSON.stringify({ version: 4, address }), Unimplemented, /unsupported shim version \(4\)/],
    [message({ version: 4, address, protocol: 'ttrpc' }), Unimplemented, /unsupported shim version \(4\)/],
    [message({ version: 3, address, protocol: 'http' }), Unimplemented, /protocol not supported/],
  ] as const)
    assert.throws(
      () => parseBootstrap(output),
      (error: Error) => hasCode(error, code) && text.test(error.message),
    );
});

test('a sandbox tells where its shim serves with the protocol before it', () => {
  assert.deepEqual(bootstrapAt(`ttrpc+${address}`, 2), { version: 2, address, protocol: 'ttrpc' });
  assert.deepEqual(bootstrapAt(`grpc+${address}`, 3), { version: 3, address, protocol: 'grpc' });
  assert.deepEqual(bootstrapAt(address, 0), { version: 3, address, protocol: 'ttrpc' });
});

test('a shim is told all it may want to know', () => {
  const options = create(AnySchema, { typeUrl: 'containerd.runc.v1.Options', value: Buffer.from('x') });
  const parameters = {
    id: 'web',
    namespace: 'ns',
    logLevel: 'debug',
    version: 'v2.3.4',
    address: '/run/g.sock',
    ttrpcAddress: '/run/g.sock.ttrpc',
    binary: '/bin/gantryd',
    socketDir: '/run/gantry/s',
    options,
  } as const;
  const read = fromBinary(BootstrapParamsSchema, encodeStartParameters(parameters));
  assert.equal(read.instanceId, 'web');
  assert.equal(read.namespace, 'ns');
  assert.equal(read.logLevel, LogLevel.DEBUG);
  assert.equal(read.containerdVersion, 'v2.3.4');
  assert.equal(read.containerdGrpcAddress, '/run/g.sock');
  assert.equal(read.containerdTtrpcAddress, '/run/g.sock.ttrpc');
  assert.equal(read.containerdBinary, '/bin/gantryd');
  assert.equal(read.socketDir, '/run/gantry/s');
  assert.deepEqual(
    read.extensions.map(({ value }) => [value?.typeUrl, Buffer.from(value?.value ?? '').toString()]),
    [['containerd.runc.v1.Options', 'x']],
  );
  // A socket beneath this could not be bound: the shim takes its own place.
  const long = encodeStartParameters({ ...parameters, socketDir: `/${'d'.repeat(42)}`, options: undefined });
  assert.equal(fromBinary(BootstrapParamsSchema, long).socketDir, undefined);
});
