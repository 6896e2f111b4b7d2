import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';

const reference = path.resolve(import.meta.dirname, '../../../../shared/wire/descriptors.binpb');
const protoRoot = path.resolve(import.meta.dirname, '../proto');
const buf = path.resolve(import.meta.dirname, '../../../node_modules/.bin/buf');

/** Every name, number, type and streaming mode of a set of files, one line each. */
function facts(bytes: Uint8Array): Map<string, string> {
  const lines = new Map<string, string>();
  const field = (f: FieldDescriptorProto): string =>
    [f.name, f.number, f.type, f.label, f.typeName, f.proto3Optional, f.jsonName, f.oneofIndex !== undefined].join(' ');
  const enumeration = (name: string, e: EnumDescriptorProto): void => {
    lines.set(`enum ${name}`, e.value.map((value) => `${value.name}=${value.number}`).join(' '));
  };
  const message = (name: string, m: DescriptorProto): void => {
    lines.set(`message ${name}`, m.field.map(field).sort().join('; '));
    for (const nested of m.nestedType) message(`${name}.${nested.name}`, nested);
    for (const e of m.enumType) enumeration(`${name}.${e.name}`, e);
  };
  for (const file of fromBinary(FileDescriptorSetSchema, bytes).file) {
    if (file.package === 'google.protobuf') continue;
    for (const m of file.messageType) message(`${file.package}.${m.name}`, m);
    for (const e of file.enumType) enumeration(`${file.package}.${e.name}`, e);
    for (const service of file.service) {
      for (const m of service.method) {
        lines.set(
          `rpc ${file.package}.${service.name}/${m.name}`,
          `${m.clientStreaming ? 'stream ' : ''}${m.inputType} -> ${m.serverStreaming ? 'stream ' : ''}${m.outputType}`,
        );
      }
    }
  }
  return lines;
}

const skip = existsSync(reference) ? false : 'the recorded descriptors are not beside this checkout';

test('the proto files say what containerd says', { skip }, () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'gantry-api-'));
  try {
    const out = path.join(directory, 'ours.binpb');
    // The same files that the code is generated from, read by the same compiler.
    execFileSync(buf, ['build', protoRoot, '-o', out], { stdio: ['ignore', 'ignore', 'pipe'] });
    const ours = facts(readFileSync(out));
    const theirs = facts(readFileSync(reference));
    assert.ok(theirs.size > 800, `only ${theirs.size} facts were recorded`);
    for (const [name, value] of theirs) assert.equal(ours.get(name), value, name);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
