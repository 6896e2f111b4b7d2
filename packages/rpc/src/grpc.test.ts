import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { Version } from '@gantry/api/gen/services/version/v1/version_pb.js';
import { createClient } from './client.ts';
import { grpcTransport } from './grpc-client.ts';
import { GrpcServer } from './grpc-server.ts';
import { asTestClient, TestService, testImplementation } from './testing-service.ts';
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
    const { credentials } = await import('@grpc/grpc-js');
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
        ? credentials.createSsl(ca, readFileSync(at(`${name}.key`)), readFileSync(at(`${name}.pem`)))
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
