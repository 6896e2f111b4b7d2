// The server with a runtime that only answers, and clients that speak as plainly as the protocols allow.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { afterEach, describe, test } from 'node:test';
import { Code, hasCode } from '@gantry/api';
import { WebSocket } from 'ws';
import type { ServerConfig } from '../config/server-config.ts';
import { HttpStreamingServer } from './http-streaming-server.ts';
import { RequestTokens } from './request-tokens.ts';
import type { StreamingRuntime } from './streaming-server.ts';

const quiet = { debug() {}, info() {}, warn() {}, error() {}, fatal() {}, child: () => quiet } as never;
const config: ServerConfig = {
  disable_tcp_service: true,
  stream_server_address: '127.0.0.1',
  stream_server_port: '0',
  stream_idle_timeout: 0,
  enable_tls_streaming: false,
  x509_key_pair_streaming: { tls_cert_file: '', tls_key_file: '' },
};

/** Echoes input, and ends with the code that its command names. */
const runtime: StreamingRuntime = {
  async exec(_id, [code = '0'], { stdin, stdout, stderr, resize }) {
    for await (const bytes of stdin ?? []) await stdout?.(Buffer.concat([Buffer.from('got '), bytes]));
    if (resize) for await (const { width, height } of resize) return width * 1000 + height;
    await stderr?.(Buffer.from('end'));
    if (code === 'fail') throw new Error('it does not want to');
    return Number(code);
  },
  async attach(_id, { stdout }) {
    await stdout?.(Buffer.from('attached'));
  },
  async portForward(_id, port, stream) {
    if (port === 1) throw new Error('nobody listens');
    for await (const bytes of stream) {
      stream.write(Buffer.concat([Buffer.from(`${port}: `), bytes as Buffer]));
      return;
    }
  },
};

describe('the streaming server', () => {
  let server: HttpStreamingServer;
  afterEach(() => server.close());

  async function start(more: Partial<ServerConfig> = {}): Promise<void> {
    server = new HttpStreamingServer({ ...config, ...more }, () => runtime, quiet);
    await server.start();
  }

  const execUrl = (code: string, terminal = false) =>
    server.execUrl({ containerId: 'c', command: [code], terminal, stdin: true, stdout: true, stderr: !terminal });

  /** Sends messages in order; answers all that come until the server ends. */
  async function talk(url: string, protocols: string[], messages: (string | Buffer)[]): Promise<Buffer[]> {
    const client = new WebSocket(url.replace('http', 'ws'), protocols, { rejectUnauthorized: false });
    const got: Buffer[] = [];
    client.on('message', (data: Buffer) => got.push(data));
    await once(client, 'open');
    assert.equal(client.protocol, protocols.find((name) => name !== 'unknown') ?? '');
    for (const message of messages) client.send(message);
    await once(client, 'close');
    return got;
  }
  const channel = (number: number, text: string) => Buffer.concat([Buffer.of(number), Buffer.from(text)]);

  test('v5: input, its end, output, and the exit code', async () => {
    await start();
    const got = await talk(execUrl('7'), ['unknown', 'v5.channel.k8s.io'], [channel(0, 'hi'), Buffer.of(255, 0)]);
    assert.deepEqual(got.slice(0, 3), [channel(1, ''), channel(1, 'got hi'), channel(2, 'end')]);
    assert.equal(got.at(-1)![0], 3);
    assert.deepEqual(JSON.parse(got.at(-1)!.toString('utf8', 1)), {
      status: 'Failure',
      message: 'command terminated with non-zero exit code: error executing command: exit code 7',
      reason: 'NonZeroExitCode',
      details: { causes: [{ reason: 'ExitCode', message: '7' }] },
    });
  });

  test('v4 in base64: a terminal’s size, split over messages', async () => {
    await start();
    const url = server.execUrl({
      containerId: 'c',
      command: [],
      terminal: true,
      stdin: false,
      stdout: true,
      stderr: false,
    });
    const base64 = (text: string) => Buffer.from(text).toString('base64');
    const got = await talk(
      url,
      ['v4.base64.channel.k8s.io'],
      [`4${base64('{"Width":8')}`, `4${base64('0,"Height":24}')}`],
    );
    assert.equal(got[0]!.toString(), '1');
    assert.match(Buffer.from(got.at(-1)!.toString('latin1', 1), 'base64').toString(), /"message":"80024"/);
  });

  test('without a version: errors are texts, success says nothing', async () => {
    await start();
    const attach = { containerId: 'c', terminal: false, stdin: false, stdout: true, stderr: true };
    assert.deepEqual(await talk(server.attachUrl(attach), [], []), [channel(1, ''), channel(1, 'attached')]);
    const exec = { ...attach, command: ['fail'] };
    const got = await talk(server.execUrl(exec), ['channel.k8s.io'], []);
    assert.equal(got.at(-1)!.toString(), '\x03error executing command in container: it does not want to');
  });

  test('ports over channels: a number first, then bytes, or why not', async () => {
    await start();
    const url = server.portForwardUrl({ sandboxId: 'p', ports: [8080, 1] });
    const got = await talk(url, ['v4.channel.k8s.io'], [channel(0, 'question')]);
    const of = (number: number) =>
      Buffer.concat(got.filter((message) => message[0] === number).map((message) => message.subarray(1)));
    assert.deepEqual(of(0), Buffer.concat([Buffer.of(0x90, 0x1f), Buffer.from('8080: question')]));
    assert.deepEqual(
      of(3),
      Buffer.concat([Buffer.of(1, 0), Buffer.from('error forwarding port 1 to pod p, uid : nobody listens')]),
    );
  });

  test('what is not understood is refused, and takes the token along', async () => {
    await start();
    const ask = async (url: string, ...headers: string[]) => {
      const { hostname, port, pathname } = new URL(url);
      const socket = net.connect(Number(port), hostname);
      socket.end([`POST ${pathname} HTTP/1.1`, 'Host: x', ...headers, '', ''].join('\r\n'));
      let text = '';
      for await (const chunk of socket.setEncoding('utf8')) text += chunk;
      return text;
    };
    const url = execUrl('0');
    assert.match(await ask(url), /^HTTP\/1\.1 400 .*unable to upgrade/s);
    assert.match(await ask(url), /^HTTP\/1\.1 404 /);
    const upgrade = ['Connection: Upgrade', 'Upgrade: SPDY/3.1'];
    const refused = await ask(execUrl('0'), ...upgrade, 'X-Stream-Protocol-Version: v9.channel.k8s.io');
    assert.match(refused, /^HTTP\/1\.1 403 .*X-Accepted-Stream-Protocol-Versions: v4\.channel\.k8s\.io/s);
    assert.match(await ask(execUrl('0'), 'Connection: Upgrade', 'Upgrade: h2c'), /^HTTP\/1\.1 400 /);
    assert.match(await ask(execUrl('0').replace('/exec/', '/attach/'), ...upgrade), /^HTTP\/1\.1 404 /);
  });

  test('bytes that are no SPDY end the connection', async () => {
    await start();
    const { hostname, port, pathname } = new URL(execUrl('0'));
    const socket = net.connect(Number(port), hostname);
    socket.on('error', () => undefined);
    socket.write(`GET ${pathname} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n`);
    socket.write(Buffer.from('80030001000000ff', 'hex'));
    socket.write(Buffer.alloc(255, 1));
    await once(socket.resume(), 'close');
  });

  test('a client that says nothing is let go', async () => {
    await start({ stream_idle_timeout: 50 });
    const client = new WebSocket(execUrl('0').replace('http', 'ws'), ['v4.channel.k8s.io']);
    await once(client, 'close');
  });

  test('TLS with a certificate of its own, and halves of a configuration', async () => {
    await start({ enable_tls_streaming: true });
    assert.match(execUrl('0'), /^https:/);
    const got = await talk(execUrl('0'), ['v5.channel.k8s.io'], [Buffer.of(255, 0)]);
    assert.equal(got.at(-1)!.toString('utf8', 1), '{"status":"Success"}');
    await server.close();
    const half = { x509_key_pair_streaming: { tls_cert_file: '/x', tls_key_file: '' } };
    await assert.rejects(start(half), /enable_tls_streaming is not/);
    await assert.rejects(start({ ...half, enable_tls_streaming: true }), /must have both/);
  });
});

test('tokens: once, for a minute, and not too many', (t) => {
  let now = 0;
  t.mock.method(performance, 'now', () => now);
  const tokens = new RequestTokens<string>();
  const first = tokens.add('a');
  assert.equal(tokens.take(first), 'a');
  assert.equal(tokens.take(first), undefined);
  const old = tokens.add('b');
  now += 60_000;
  assert.equal(tokens.take(old), undefined);
  for (let number = 0; number < 1000; number++) tokens.add('x');
  assert.throws(
    () => tokens.add('one too many'),
    (error) => hasCode(error, Code.ResourceExhausted),
  );
  now += 60_000;
  tokens.add('again');
});
