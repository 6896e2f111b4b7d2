import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import { LogRequest_Level, LogRequestSchema, Plugin as PluginService } from '@gantry/api/gen/nri/v1alpha1/api_pb.js';
import { createClient } from '@gantry/rpc';
import type { PluginWire } from '../plugin-wire.ts';
import { boundMemory, pageSize } from './bound-memory.ts';
import { answers, assemble, constant, op, type TestFunction, testPlugin } from './testing-module.ts';
import { WasmModule } from './wasm-module.ts';
import { isWasmFile, wasmWire } from './wasm-wire.ts';
import { WebAssembly } from './web-assembly.ts';

const loop: TestFunction = {
  parameters: ['i32', 'i32'],
  results: ['i64'],
  code: [op.loop, op.empty, op.br, 0, op.end, op.unreachable],
};
const nothing = (): void => undefined;
const memory = 4 << 20;
const module = (bytes: Uint8Array): WasmModule => new WasmModule(bytes, memory / pageSize, nothing);
const request = Uint8Array.of(7, 8, 9);

describe('a module with the functions of a plugin', () => {
  test('answers, errors, and functions that are not there', () => {
    const text = Buffer.from('no such thing');
    const plugin = module(
      testPlugin(
        {
          plugin_configure: answers(100, text.length),
          plugin_create_container: answers(100, text.length + 2 ** 31),
          plugin_synchronize: answers(4096, 3),
        },
        { data: { at: 100, bytes: text } },
      ),
    );
    assert.deepEqual(plugin.call('plugin_shutdown', request), { kind: 'answer', bytes: new Uint8Array() });
    assert.deepEqual(plugin.call('plugin_configure', request), { kind: 'answer', bytes: new Uint8Array(text) });
    assert.deepEqual(plugin.call('plugin_create_container', request), { kind: 'refusal', reason: 'no such thing' });
    // What was asked was put where `malloc` said.
    assert.deepEqual(plugin.call('plugin_synchronize', request), { kind: 'answer', bytes: request });
    assert.deepEqual(plugin.call('plugin_run_pod_sandbox', request), { kind: 'missing' });
  });

  test('what is no plugin is told why', () => {
    const version = { plugin_api_version: { parameters: [], results: ['i64'], code: [op.i64, 2] } } as const;
    assert.throws(() => module(testPlugin(version as never)), /API version mismatch, host: 1, plugin: 2/);
    const bare = { plugin_api_version: { parameters: [], results: ['i64'] as ['i64'], code: [op.i64, 1] } };
    assert.throws(() => module(assemble({ functions: bare as never })), /plugin_configure is not exported/);
    const greedy = { secret: { module: 'env', parameters: [], results: [] } };
    assert.throws(() => module(testPlugin({}, { imports: greedy })), /secret/);
    assert.throws(() => module(Buffer.from('#!/bin/sh')), /not a WebAssembly module/);
  });

  test('answers from beyond its memory, of any length or of another kind are no answers', () => {
    for (const [at, size] of [
      [1_000_000, 10],
      [0, 200 << 20],
    ] as const) {
      const plugin = module(testPlugin({ plugin_configure: answers(at, size) }));
      assert.throws(() => plugin.call('plugin_configure', request));
    }
    const other: TestFunction = { parameters: ['i32', 'i32'], results: ['i32'], code: [op.i32, 1] };
    assert.throws(() => module(testPlugin({ plugin_configure: other })).call('plugin_configure', request), /64 bits/);
    const nowhere: TestFunction = { parameters: ['i32'], results: ['i32'], code: [op.i32, ...constant(-1)] };
    assert.throws(() => module(testPlugin({ malloc: nowhere })).call('plugin_configure', request), RangeError);
  });
});

test('memory has a limit, whatever the module says', () => {
  const pages = (bytes: Uint8Array): number => {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), {});
    return (exports['grow'] as (pages: number) => number)(100);
  };
  const grow: TestFunction = { parameters: ['i32'], results: ['i32'], code: [op.get, 0, op.grow] };
  const of = (limits: number[]): Uint8Array => assemble({ functions: { grow }, memory: limits });
  assert.equal(pages(of([0, 2])), 2);
  assert.equal(pages(boundMemory(of([0, 2]), 50)), -1);
  assert.equal(pages(boundMemory(of([0, 2]), 102)), 2);
  assert.equal(pages(boundMemory(of([1, 2, 0xff, 0x7f]), 50)), -1);
  assert.equal(pages(boundMemory(of([1, 2, 60]), 5000)), -1);
  assert.throws(() => boundMemory(of([0, 60]), 50), /needs 3932160 bytes of memory; 3276800 is the most/);
  assert.throws(() => boundMemory(of([3, 1, 2]), 50), /shared/);
  for (let cut = 9; cut < 60; cut++) {
    const whole = of([0, 2]);
    // Every cut that is inside a section is seen here; a module of whole sections only is the engine's to judge.
    try {
      boundMemory(whole.subarray(0, cut), 50);
    } catch (error) {
      assert.ok(hasCode(error, Code.InvalidArgument));
    }
  }
});

describe('a plugin in a thread', () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'nri-wasm-'));
  const wires: PluginWire[] = [];
  after(() => {
    for (const wire of wires) wire.close();
    rmSync(directory, { recursive: true });
  });
  const logged: string[] = [];
  let files = 0;

  async function load(bytes: Uint8Array) {
    const file = path.join(directory, `${++files}-plugin`);
    writeFileSync(file, bytes);
    const wire = await wasmWire(file, {
      loadTimeout: 60_000,
      log: (level, message) => logged.push(`${level} ${message}`),
    });
    wires.push(wire);
    return { wire, client: createClient(PluginService, wire.transport), file };
  }

  test('is called, logs, and is known by its first bytes', async () => {
    const message = toBinary(
      LogRequestSchema,
      create(LogRequestSchema, { level: LogRequest_Level.WARN, msg: 'hello' }),
    );
    const { client, file } = await load(
      testPlugin(
        {
          plugin_configure: {
            parameters: ['i32', 'i32'],
            results: ['i64'],
            code: [op.i32, ...constant(100), op.i32, ...constant(message.length), op.call, 0],
          },
        },
        {
          imports: { log: { module: 'env', parameters: ['i32', 'i32'], results: ['i64'] } },
          data: { at: 100, bytes: message },
        },
      ),
    );
    assert.equal(await isWasmFile(file), true);
    assert.equal(await isWasmFile(process.execPath), false);
    assert.equal((await client.configure({})).events, 0);
    assert.deepEqual(logged, ['warn hello']);
    await assert.rejects(client.runPodSandbox({}), (error) => hasCode(error, Code.Unimplemented));
  });

  test('one that does not come back is ended, and one that ends says why', async () => {
    const { wire, client } = await load(testPlugin({ plugin_create_container: loop }));
    const closed = new Promise<void>((resolve) => wire.onClose(resolve));
    await assert.rejects(client.createContainer({}, { timeoutMs: 200 }), (error) =>
      hasCode(error, Code.DeadlineExceeded),
    );
    wire.close();
    await closed;
    await assert.rejects(client.configure({}), (error) => hasCode(error, Code.Unavailable));

    const trap: TestFunction = { parameters: ['i32', 'i32'], results: ['i64'], code: [op.unreachable] };
    const second = await load(testPlugin({ plugin_create_container: trap }));
    await assert.rejects(second.client.createContainer({}), /unreachable/);
    await assert.rejects(second.client.configure({}), (error) => hasCode(error, Code.Unavailable));
  });

  test('a file that is none, and one that never begins', async () => {
    await assert.rejects(
      load(Buffer.from('\0asm\x01\0\0\0', 'latin1')),
      /failed to load WASM plugin: memory is not exported/,
    );
    const file = path.join(directory, 'endless');
    writeFileSync(file, testPlugin({ _initialize: { ...loop, parameters: [], results: [] } }));
    const options = { loadTimeout: 300, log: nothing };
    await assert.rejects(wasmWire(file, options), (error) => hasCode(error, Code.DeadlineExceeded));
  });
});
