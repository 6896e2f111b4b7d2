import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { appendFileSync, closeSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { create, toBinary } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { Health } from '@gantry/api/gen/grpc/health/v1/health_pb.js';
import { Introspection } from '@gantry/api/gen/services/introspection/v1/introspection_pb.js';
import { Events, type ForwardRequest } from '@gantry/api/gen/services/ttrpc/events/v1/events_pb.js';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { createClient, grpcTransport, TtrpcServer } from '@gantry/rpc';
import { check, native } from '@gantry/sys/libc.ts';
import { parseFlags } from './flags.ts';
import { fillTemplate } from './oci-hook.ts';

const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-gantryd-'));
after(() => rmSync(dir, { recursive: true, force: true }));
const entry = path.join(import.meta.dirname, 'gantryd.ts');

interface Result {
  stdout: string;
  stderr: string;
  code: number;
}

async function gantryd(args: string[], input: string | Buffer = ''): Promise<Result> {
  const running = promisify(execFile)(process.execPath, [entry, ...args]);
  running.child.stdin?.end(input);
  try {
    return { ...(await running), code: 0 };
  } catch (error) {
    return error as Result;
  }
}

/** Flags, and a file, of a daemon that keeps to its own directory. */
function daemonArgs(name: string): { args: string[]; address: string } {
  const config = path.join(dir, `${name}.toml`);
  writeFileSync(
    config,
    `version = 4\nimports = []\n[plugins.'io.containerd.internal.v1.opt']\npath = '${dir}/opt'\n[plugins.'io.containerd.nri.v1.nri']\ndisable = true\n`,
  );
  const address = path.join(dir, `${name}.sock`);
  const at = path.join(dir, name);
  return {
    args: [entry, '-c', config, '-a', address, '--root', `${at}-root`, '--state', `${at}-state`, '--log-level=warn'],
    address,
  };
}

async function answers(address: string): Promise<void> {
  const transport = grpcTransport(address);
  try {
    for (let tries = 0; ; tries++) {
      try {
        await createClient(Health, transport).check({}, { timeoutMs: 1000 });
        return;
      } catch (error) {
        if (tries > 100) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  } finally {
    await transport.close();
  }
}

function ended(child: ChildProcess): Promise<number | string | null> {
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
}

test("flags are containerd's, with one dash or two, before the sub-command", () => {
  const flags = parseFlags(['-c', '/c', '--address=/a', '-root', '/r', '-l', 'debug', 'publish', '--topic', '/x']);
  assert.deepEqual(
    { ...flags, state: undefined },
    {
      config: '/c',
      address: '/a',
      root: '/r',
      state: undefined,
      logLevel: 'debug',
      version: false,
      help: false,
      rest: ['publish', '--topic', '/x'],
    },
  );
  assert.throws(() => parseFlags(['--nope']), /nope/);
});

test('version, help, and a command nobody knows', async () => {
  assert.match((await gantryd(['--version'])).stdout, /^gantryd \S+ v2\.\d+\.\d+\+gantry\./);
  assert.match((await gantryd(['--help'])).stdout, /config migrate/);
  const { code, stderr } = await gantryd(['dance']);
  assert.equal(code, 1);
  assert.equal(stderr, 'gantryd: unknown command "dance"; see gantryd --help\n');
});

test('config default is read back without a warning; migrate keeps the text, check and dump tell of what is wrong', async () => {
  const defaults = await gantryd(['config', 'default']);
  const file = path.join(dir, 'default.toml');
  writeFileSync(file, defaults.stdout.replace(/^imports = .*/m, 'imports = []'));
  const dump = await gantryd(['-c', file, 'config', 'dump']);
  assert.equal(dump.stderr, '');
  assert.equal(dump.stdout, defaults.stdout.replace(/^imports = .*/m, 'imports = []'));

  const old = path.join(dir, 'old.toml');
  writeFileSync(old, 'version = 2\nimports = []\nnope = 1\n[grpc] # for clients\naddress = "/x.sock"\n');
  const migrated = await gantryd(['-c', old, 'config', 'migrate']);
  assert.equal(
    migrated.stdout,
    'version = 4\nimports = []\nnope = 1\n[plugins."io.containerd.server.v1.grpc"] # for clients\naddress = "/x.sock"\n',
  );
  const checked = await gantryd(['-c', old, 'config', 'check']);
  assert.equal(checked.code, 1);
  assert.match(
    checked.stdout,
    /old\.toml:0: old: version 2 .*\n.*old\.toml:3: unknown: nope is unknown and ignored\n$/,
  );
  const dumped = await gantryd(['-c', old, 'config', 'dump']);
  assert.match(dumped.stderr, /old\.toml: top level: key nope is unknown and ignored/);
  writeFileSync(old, 'version = 2\noom_score = "x"\n');
  assert.match(
    (await gantryd(['-c', old, 'config', 'dump'])).stderr,
    /^gantryd: .*old\.toml: .*oom_score: expected an integer/,
  );
});

test('a daemon serves, tells what it is made of, refuses a second one, and ends on SIGTERM', async () => {
  const { args, address } = daemonArgs('one');
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const exit = ended(child);
  const transport = grpcTransport(address);
  try {
    await answers(address);
    const { version } = await createClient(Version, transport).version({});
    assert.match(version, /^v2\./);
    const introspection = createClient(Introspection, transport);
    const { plugins } = await introspection.plugins({ filters: ['type==io.containerd.server.v1'] });
    assert.deepEqual(plugins.map(({ id, initErr }) => [id, initErr?.message ?? '']).sort(), [
      ['debug', 'no address: skip plugin'],
      ['grpc', ''],
      ['grpc-tcp', 'no address: skip plugin'],
      ['live', 'no address: skip plugin'],
      ['metrics', 'no address: skip plugin'],
      ['ttrpc', ''],
    ]);
    const server = await introspection.server({});
    assert.equal(server.pid, BigInt(child.pid!));
    assert.match(server.uuid, /^[0-9a-f-]{36}$/);
    const info = await introspection.pluginInfo({ type: 'io.containerd.grpc.v1', id: 'version' });
    assert.equal(info.plugin?.id, 'version');
    await assert.rejects(introspection.pluginInfo({ type: 'a', id: 'b' }), { code: 5 });

    const second = await gantryd([...args.slice(1, 3), '-a', `${address}2`, ...args.slice(5)]);
    assert.equal(second.code, 1);
    assert.match(second.stderr, new RegExp(`another daemon uses the root directory .* \\(process ${child.pid}\\)`));
  } finally {
    await transport.close();
    child.kill('SIGTERM');
  }
  assert.equal(await exit, 0);
  assert.ok(!existsSync(address));
});

/** What a running containerd 2.3.4 shows before anything was done to it, but for its Kubernetes side and for Go's own numbers. */
const metricNames = {
  containerd_build_info_total: 'counter',
  containerd_gc_collections_total: 'counter',
  containerd_gc_gc_seconds: 'histogram',
  grpc_server_handled_total: 'counter',
  grpc_server_msg_received_total: 'counter',
  grpc_server_msg_sent_total: 'counter',
  grpc_server_started_total: 'counter',
  process_cpu_seconds_total: 'counter',
  process_max_fds: 'gauge',
  process_network_receive_bytes_total: 'counter',
  process_network_transmit_bytes_total: 'counter',
  process_open_fds: 'gauge',
  process_resident_memory_bytes: 'gauge',
  process_start_time_seconds: 'gauge',
  process_virtual_memory_bytes: 'gauge',
  process_virtual_memory_max_bytes: 'gauge',
  promhttp_metric_handler_requests_in_flight: 'gauge',
  promhttp_metric_handler_requests_total: 'counter',
};

test("metrics have containerd's names and types, and count streams while they last", async () => {
  const { args, address } = daemonArgs('metrics');
  const socketPath = path.join(dir, 'prometheus.sock');
  appendFileSync(args[2]!, `[plugins.'io.containerd.server.v1.metrics']\naddress = '${socketPath}'\n`);
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const exit = ended(child);
  const transport = grpcTransport(address);
  const ask = async (): Promise<string> => {
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      http.get({ socketPath, path: '/v1/metrics', agent: false }, resolve).on('error', reject);
    });
    return await text(response);
  };
  try {
    await answers(address);
    await createClient(Version, transport).version({});
    const watching = new AbortController();
    const service = createClient(Health, transport);
    const watch = service.watch({}, { signal: watching.signal })[Symbol.asyncIterator]();
    await watch.next();
    const labels = 'grpc_type="server_stream",grpc_service="grpc.health.v1.Health",grpc_method="Watch"';
    let shown = await ask();
    assert.ok(shown.includes(`grpc_server_started_total{${labels}} 1\n`), shown);
    assert.ok(!shown.includes(`grpc_server_handled_total{${labels}`));
    watching.abort();
    await watch.next().catch(() => undefined);
    for (let tries = 0; ; tries++) {
      shown = await ask();
      if (shown.includes(`grpc_server_msg_sent_total{${labels}} 1\n`) && shown.includes('containerd_gc_gc_seconds'))
        break;
      assert.ok(tries < 600, shown);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.match(shown, /^containerd_gc_collections_total\{status="success"\} \d+$/m);
    const types = Object.fromEntries(
      [...shown.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]),
    );
    for (const [name, type] of Object.entries(metricNames)) assert.equal(types[name], type, name);
  } finally {
    await transport.close();
    child.kill('SIGTERM');
  }
  assert.equal(await exit, 0);
});

test('after kill -9 the next daemon takes over at once', async () => {
  const { args, address } = daemonArgs('killed');
  const first = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  await answers(address);
  const exit = ended(first);
  first.kill('SIGKILL');
  await exit;
  const second = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const secondExit = ended(second);
  await answers(address);
  second.kill('SIGTERM');
  assert.equal(await secondExit, 0);
});

test('a socket that a service manager opened is served and not removed', async () => {
  const { args, address } = daemonArgs('activated');
  // By hand, because Node's own server would accept connections too.
  const fd = check('socket', native('socket', ['int', 'int', 'int'])(1, 1 | 0x80000, 0));
  const name = Buffer.concat([Buffer.from([1, 0]), Buffer.from(`${address}\0`)]);
  check('bind', native('bind', ['int', 'ptr', 'uint'])(fd, name, name.length));
  check('listen', native('listen', ['int', 'int'])(fd, 16));
  const child = spawn('/bin/sh', ['-c', 'LISTEN_PID=$$ exec "$0" "$@"', process.execPath, ...args], {
    stdio: ['ignore', 'ignore', 'inherit', fd],
    env: { ...process.env, LISTEN_FDS: '1' },
  });
  const exit = ended(child);
  try {
    await answers(address);
  } finally {
    child.kill('SIGTERM');
  }
  assert.equal(await exit, 0);
  assert.ok(existsSync(address));
  closeSync(fd);
});

test('publish forwards the event on its standard input', async () => {
  const socket = path.join(dir, 'events.sock');
  const server = new TtrpcServer();
  const got: ForwardRequest[] = [];
  server.add(Events, {
    forward: (request) => {
      got.push(request);
      return {};
    },
  });
  await server.listenUnix(`${socket}.ttrpc`);
  try {
    const event = toBinary(AnySchema, create(AnySchema, { typeUrl: 'x.Y', value: new Uint8Array([8, 1]) }));
    const args = ['--address', socket, 'publish', '--topic', '/tasks/exit', '--namespace', 'blue'];
    const { stderr, code } = await gantryd(args, Buffer.from(event));
    assert.equal(stderr, '');
    assert.equal(code, 0);
  } finally {
    await server.close();
  }
  assert.equal(got.length, 1);
  const { envelope } = got[0]!;
  assert.deepEqual([envelope?.namespace, envelope?.topic, envelope?.event?.typeUrl], ['blue', '/tasks/exit', 'x.Y']);
});

test('oci-hook fills in what it is told and runs the command with the same input', async () => {
  writeFileSync(path.join(dir, 'config.json'), JSON.stringify({ root: { path: 'fs' } }));
  const state = JSON.stringify({ id: 'c1', pid: 7, bundle: dir, annotations: { 'a.b': 'see' } });
  const { stdout } = await gantryd(
    ['oci-hook', '--', 'sh', '-c', 'echo "$@"; cat', '-', '{{id}}', '{{pid}}', '{{rootfs}}', 'x{{annotation "a.b"}}'],
    state,
  );
  assert.equal(stdout, `c1 7 ${dir}/fs xsee\n${state}`);
  assert.equal((await gantryd(['oci-hook', '--', 'sh', '-c', 'exit 9'], state)).code, 9);
  assert.throws(() => fillTemplate('{{nope}}', {}, () => ''), /function "nope" is not defined/);
});
