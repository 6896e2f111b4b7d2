import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { create, type DescMethodUnary, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, hasCode, packAny, StatusError } from '@gantry/api';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { DescriptorSchema } from '@gantry/api/gen/types/descriptor_pb.js';
import { createClient } from './client.ts';
import { grpcTransport } from './grpc-client.ts';
import { GrpcServer } from './grpc-server.ts';
import {
  asTestClient,
  type Item,
  type TestHandlers,
  TestService,
  testImplementation,
  toArray,
} from './testing-service.ts';
import { transportSuite } from './transport-suite.ts';

function tempDir(): { dir: string; remove(): void } {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-rpc-'));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

describe('gRPC', () => {
  transportSuite({
    name: 'grpc',
    limit: 16 << 20,
    async connect(options) {
      const { dir, remove } = tempDir();
      const server = new GrpcServer(options);
      await server.listenUnix(path.join(dir, 'real.sock'));
      // A relay stands between, so that a test can cut the wire.
      const wires = new Set<net.Socket>();
      const relay = net.createServer((near) => {
        const far = net.connect(path.join(dir, 'real.sock'));
        for (const [from, to] of [
          [near, far],
          [far, near],
        ] as const) {
          wires.add(from);
          from.pipe(to);
          from.on('error', () => to.destroy());
          from.on('close', () => to.destroy());
        }
      });
      await new Promise<void>((resolve) => relay.listen(path.join(dir, 'relay.sock'), resolve));
      const transport = grpcTransport(path.join(dir, 'relay.sock'));
      const sever = () => {
        for (const wire of wires) wire.destroy();
      };
      return {
        server,
        transport,
        sever,
        close: async () => {
          await transport.close();
          await server.close();
          sever();
          await new Promise((resolve) => relay.close(resolve));
          remove();
        },
      };
    },
  });
});

describe('a gRPC server', () => {
  it('makes its socket with the mode that was asked for and removes it', async () => {
    const { dir, remove } = tempDir();
    const server = new GrpcServer();
    const file = path.join(dir, 'deep', 'x.sock');
    await server.listenUnix(file, { mode: 0o600 });
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await server.listenUnix(path.join(dir, 'y.sock'));
    assert.equal(statSync(path.join(dir, 'y.sock')).mode & 0o777, 0o660);
    await server.close();
    assert.equal(statSync(file, { throwIfNoEntry: false }), undefined);
    remove();
  });

  it('takes the place of a dead socket, not of a living one nor of a file', async () => {
    const { dir, remove } = tempDir();
    const file = path.join(dir, 'x.sock');
    const first = new GrpcServer();
    await first.listenUnix(file);
    const second = new GrpcServer();
    await assert.rejects(second.listenUnix(file), (reason) => hasCode(reason, Code.AlreadyExists));
    const plain = path.join(dir, 'plain');
    writeFileSync(plain, 'kept');
    await assert.rejects(second.listenUnix(plain), (reason) => hasCode(reason, Code.FailedPrecondition));
    assert.equal(statSync(plain).size, 4);
    await first.close();
    // A socket whose owner died: bound by a process that was killed before it could clean up.
    const { spawnSync } = await import('node:child_process');
    const dead = `require('net').createServer().listen(${JSON.stringify(file)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', dead]);
    assert.ok(statSync(file).isSocket());
    await second.listenUnix(file);
    await second.close();
    remove();
  });

  it('serves TCP, and TLS with clients that show the right certificate', async (t) => {
    const { dir, remove } = tempDir();
    const { spawnSync } = await import('node:child_process');
    if (spawnSync('openssl', ['version']).status !== 0) {
      t.skip('needs openssl');
      remove();
      return;
    }
    const { readFileSync } = await import('node:fs');
    const at = (name: string) => path.join(dir, name);
    const openssl = (...args: string[]) =>
      assert.equal(spawnSync('openssl', args, { cwd: dir }).status, 0, args.join(' '));
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    openssl('req', '-x509', ...ec, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=test authority');
    for (const [name, cn] of [
      ['server', 'localhost'],
      ['alice', 'alice'],
      ['mallory', 'mallory'],
    ] as const) {
      writeFileSync(at('ext'), 'subjectAltName=DNS:localhost,IP:127.0.0.1');
      openssl('req', ...ec, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${cn}`);
      const sign = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'ext'];
      openssl('x509', '-req', '-in', `${name}.csr`, ...sign, '-out', `${name}.pem`);
    }
    const server = new GrpcServer();
    server.add(Version, { version: () => ({ version: 'v2', revision: 'r' }) });
    const plainPort = await server.listenTcp('127.0.0.1:0');
    const tlsPort = await server.listenTcp('127.0.0.1:0', {
      key: readFileSync(at('server.key')),
      cert: readFileSync(at('server.pem')),
      clientCa: readFileSync(at('ca.pem')),
      requireClientCert: true,
      commonName: 'alice',
    });
    const ca = readFileSync(at('ca.pem'));
    const attempt = async (port: number, name?: string) => {
      const creds = name
        ? { ca, key: readFileSync(at(`${name}.key`)), cert: readFileSync(at(`${name}.pem`)) }
        : undefined;
      const transport = grpcTransport(`localhost:${port}`, creds ? { credentials: creds } : {});
      try {
        return (await createClient(Version, transport).version({}, { timeoutMs: 5000 })).version;
      } catch (reason) {
        return (reason as { code: Code }).code;
      } finally {
        await transport.close();
      }
    };
    assert.equal(await attempt(plainPort), 'v2');
    assert.equal(await attempt(tlsPort, 'alice'), 'v2');
    assert.equal(await attempt(tlsPort, 'mallory'), Code.Unavailable);
    assert.equal(await attempt(tlsPort), Code.Unavailable);
    await server.close();
    remove();
  });

  it('lets calls in flight end within the grace time, then breaks them', async () => {
    const { dir, remove } = tempDir();
    const server = new GrpcServer();
    const started = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let release = () => {};
    server.add(
      TestService,
      testImplementation({
        one: ({ text }, { signal }) =>
          new Promise((resolve, reject) => {
            if (text === 'short') release = () => resolve({ text });
            else signal.addEventListener('abort', () => reject(signal.reason));
            started[text === 'short' ? 0 : 1]!.resolve();
          }),
      }),
    );
    await server.listenUnix(path.join(dir, 'x.sock'));
    const transport = grpcTransport(path.join(dir, 'x.sock'));
    const client = asTestClient(createClient(TestService, transport));
    const short = client.one({ text: 'short' });
    const endless = assert.rejects(client.one({ text: 'endless' }), (reason) => hasCode(reason, Code.Unavailable));
    await Promise.all(started.map((each) => each.promise));
    const closing = server.close(50);
    release();
    assert.equal((await short).text, 'short');
    await endless;
    await closing;
    await transport.close();
    remove();
  });
});

// An implementation that is not ours at the other end.
describe('gRPC beside grpc-js', () => {
  const handlers: TestHandlers = {
    one: ({ text, data }) => {
      if (text === 'bad')
        throw new StatusError(Code.NotFound, 'image "ä%": not found', {
          details: [packAny(DescriptorSchema, { size: 7n })],
        });
      return { text, data };
    },
    both: async function* (requests) {
      for await (const { text, data } of requests) {
        if (text === 'end') return;
        yield { text, data };
      }
    },
  };
  const { input } = TestService.method['one'] as DescMethodUnary;
  const encode = (message: object) => Buffer.from(toBinary(input, create(input, message as never)));
  const decode = (bytes: Buffer) => fromBinary(input, bytes) as unknown as Item;
  const pathOf = (method: string) => `/gantry.test.Test/${method}`;
  const large = new Uint8Array(3 << 20).map((_, index) => index % 251);

  it('answers its client', async () => {
    const grpc = await import('@grpc/grpc-js');
    const { dir, remove } = tempDir();
    const server = new GrpcServer();
    server.add(TestService, testImplementation(handlers));
    await server.listenUnix(path.join(dir, 'x.sock'));
    const client = new grpc.Client(`unix:${dir}/x.sock`, grpc.credentials.createInsecure());
    const one = (message: object, options: object = {}) =>
      new Promise<Item>((resolve, reject) =>
        client.makeUnaryRequest(
          pathOf('One'),
          encode,
          decode,
          message,
          new grpc.Metadata(),
          options,
          (error, answer) => (error ? reject(error) : resolve(answer!)),
        ),
      );
    try {
      assert.equal((await one({ text: 'ä' })).text, 'ä');
      assert.ok(Buffer.from(large).equals((await one({ data: large })).data));
      await assert.rejects(one({ text: 'bad' }), { code: 5, details: 'image "ä%": not found' });
      const call = client.makeBidiStreamRequest(pathOf('Both'), encode, decode);
      const texts: string[] = [];
      call.on('data', ({ text, data }: Item) => texts.push(`${text} ${data.length}`));
      const over = new Promise((resolve) => call.on('status', ({ code }) => resolve(code)));
      for (const text of ['a', 'b']) call.write({ text, data: large });
      call.write({ text: 'end' });
      assert.equal(await over, 0);
      assert.deepEqual(texts, [`a ${large.length}`, `b ${large.length}`]);
    } finally {
      client.close();
      await server.close();
      remove();
    }
  });

  it('calls its server', async () => {
    const grpc = await import('@grpc/grpc-js');
    const { dir, remove } = tempDir();
    const server = new grpc.Server();
    const common = {
      requestSerialize: encode,
      requestDeserialize: decode,
      responseSerialize: encode,
      responseDeserialize: decode,
    };
    server.addService(
      {
        One: { path: pathOf('One'), requestStream: false, responseStream: false, ...common },
        Both: { path: pathOf('Both'), requestStream: true, responseStream: true, ...common },
      },
      {
        One: (call: { request: Item }, callback: (error: object | null, answer?: Item) => void) => {
          if (call.request.text === 'bad') callback({ code: 9, details: 'not ä% ready' });
          else callback(null, call.request);
        },
        Both: (call: {
          on(event: string, listener: (item: Item) => void): void;
          write(item: Item): void;
          end(): void;
        }) => {
          call.on('data', (item) => call.write(item));
          call.on('end', () => call.end());
        },
      } as never,
    );
    await new Promise((resolve) =>
      server.bindAsync(`unix:${dir}/x.sock`, grpc.ServerCredentials.createInsecure(), resolve),
    );
    const transport = grpcTransport(path.join(dir, 'x.sock'));
    await transport.ready(5000);
    const client = asTestClient(createClient(TestService, transport));
    try {
      assert.ok(Buffer.from(large).equals((await client.one({ data: large })).data));
      await assert.rejects(client.one({ text: 'bad' }), { code: Code.FailedPrecondition, message: 'not ä% ready' });
      await assert.rejects(toArray(client.out({})), (reason) => hasCode(reason, Code.Unimplemented));
      const requests = async function* () {
        for (const text of ['a', 'b', 'c']) yield { text, data: large };
      };
      assert.deepEqual(await toArray(client.both(requests())), ['a', 'b', 'c']);
    } finally {
      await transport.close();
      server.forceShutdown();
      remove();
    }
  });
});

describe('a gRPC client', () => {
  it('connects again when the server comes back, and says Unavailable while it is gone', async () => {
    const { dir, remove } = tempDir();
    const file = path.join(dir, 'x.sock');
    const transport = grpcTransport(file);
    const client = createClient(Version, transport);
    await assert.rejects(client.version({}), (reason) => hasCode(reason, Code.Unavailable));
    await assert.rejects(transport.ready(60), (reason) => hasCode(reason, Code.DeadlineExceeded));
    for (let round = 0; round < 2; round++) {
      const ready = transport.ready(5000);
      const server = new GrpcServer();
      server.add(Version, { version: () => ({ version: `v${round}`, revision: '' }) });
      await server.listenUnix(file);
      await ready;
      assert.equal((await client.version({})).version, `v${round}`);
      await server.close();
      await assert.rejects(client.version({}), (reason) => hasCode(reason, Code.Unavailable));
    }
    await transport.close();
    remove();
  });

  it('lets the process end while it is idle', async () => {
    const { dir, remove } = tempDir();
    const server = new GrpcServer();
    server.add(Version, { version: () => ({ version: 'v1', revision: '' }) });
    await server.listenUnix(path.join(dir, 'x.sock'));
    const { execFile } = await import('node:child_process');
    const { promisify } = await import('node:util');
    const code = `import { createClient, grpcTransport } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)};
      import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
      console.log((await createClient(Version, grpcTransport(${JSON.stringify(path.join(dir, 'x.sock'))})).version({})).version);`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code], {
      cwd: import.meta.dirname,
      timeout: 20_000,
    });
    assert.equal(stdout, 'v1\n');
    await server.close();
    remove();
  });
});
