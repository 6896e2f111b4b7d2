import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import { ErrorCode, Flag, FrameType, numberFrame, preface, settingsFrame, smallFrame } from './frame.ts';
import { encodeHeaders } from './hpack-encoding.ts';
import type { RequestHeaders } from './request-headers.ts';
import { ServerConnection } from './server-connection.ts';
import type { ServerStream } from './server-stream.ts';

type Handler = (stream: ServerStream, headers: RequestHeaders) => void;

const ok = encodeHeaders({ ':status': 200 });
const done = encodeHeaders({ 'grpc-status': 0 });

/** Answers with what was sent, in one piece. */
const echo: Handler = (stream) => {
  const pieces: Buffer[] = [];
  stream.receiver = {
    body: (piece) => pieces.push(Buffer.from(piece)),
    complete: () => stream.answer(ok, pieces, done),
    gone: () => {},
  };
};

async function serve(handler: Handler) {
  const connections: ServerConnection[] = [];
  const failures: Error[] = [];
  const server = net.createServer((socket) => {
    connections.push(
      new ServerConnection(socket, { stream: handler, closed: () => {}, failed: (error) => failures.push(error) }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  return {
    port,
    failures,
    close: async () => {
      for (const connection of connections) connection.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function ask(
  session: http2.ClientHttp2Session,
  body: Uint8Array,
  headers: http2.OutgoingHttpHeaders = {},
): Promise<{ body: Buffer; trailers: http2.IncomingHttpHeaders }> {
  const stream = session.request({ ':method': 'POST', ':path': '/x', ...headers });
  let trailers: http2.IncomingHttpHeaders = {};
  stream.on('trailers', (all) => {
    trailers = all;
  });
  stream.end(body);
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece as Buffer);
  return { body: Buffer.concat(pieces), trailers };
}

const pattern = (size: number): Buffer => Buffer.from(new Uint8Array(size).map((_, index) => index % 251));

// nghttp2, which is behind Node's, at the other end.
describe('an HTTP/2 connection', { timeout: 60_000 }, () => {
  it('answers in windows and frames of any size, many streams at once', async () => {
    const server = await serve(echo);
    for (const settings of [{ initialWindowSize: 1000 }, { headerTableSize: 0, maxFrameSize: 100_000 }]) {
      const session = http2.connect(`http://127.0.0.1:${server.port}`, { settings });
      const sizes = [0, 1, 16_384, 16_385, 70_000, 3_000_000];
      const answers = await Promise.all(sizes.map((size) => ask(session, pattern(size))));
      for (const [index, { body, trailers }] of answers.entries()) {
        assert.ok(body.equals(pattern(sizes[index]!)), `${sizes[index]} bytes`);
        assert.equal(trailers['grpc-status'], '0');
      }
      session.close();
      await once(session, 'close');
    }
    assert.deepEqual(server.failures, []);
    await server.close();
  });

  it('reads headers that are sent again, changed, and more than the table holds', async () => {
    const seen: RequestHeaders[] = [];
    const server = await serve((stream, headers) => {
      seen.push(headers);
      stream.respond(ok, true);
    });
    const session = http2.connect(`http://127.0.0.1:${server.port}`);
    for (let round = 0; round < 300; round++) {
      const headers = {
        'x-same': 'always the same',
        [`x-${round % 70}`]: `ä ${round} `.repeat(1 + (round % 40)).trim(),
      };
      const stream = session.request({ ':method': 'POST', ':path': `/path/${round}`, ...headers });
      stream.resume();
      await once(stream, 'close');
      assert.equal(seen[round]!.path, `/path/${round}`);
      for (const [name, value] of Object.entries(headers)) {
        assert.equal(Buffer.from(seen[round]!.get(name)!, 'latin1').toString('latin1'), value);
      }
    }
    session.destroy();
    await server.close();
  });

  it('closes on a peer that broke the rules, be it that this one stays', async () => {
    const server = await serve(echo);
    const peer = net.connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true });
    peer.write('GET / HTTP/1.1\r\n\r\n');
    peer.resume();
    await once(peer, 'end');
    // Our end is open; the other is gone, so that what is written there comes back as an error sooner or later.
    const write = setInterval(() => peer.write('x'), 5);
    await once(peer, 'error');
    clearInterval(write);
    assert.equal(server.failures.length, 1);
    await server.close();
  });

  it('tells whoever serves a stream that its peer has gone', async () => {
    const { promise: opened, resolve: open } = Promise.withResolvers<void>();
    const { promise: gone, resolve } = Promise.withResolvers<string>();
    const server = await serve((stream) => {
      stream.receiver = { body: () => {}, complete: () => {}, gone: () => resolve(`${stream.id}`) };
      open();
    });
    const session = http2.connect(`http://127.0.0.1:${server.port}`);
    const stream = session.request({ ':method': 'POST', ':path': '/x' });
    stream.on('error', () => {});
    await opened;
    stream.close(http2.constants.NGHTTP2_CANCEL);
    assert.equal(await gone, '1');
    session.destroy();
    await server.close();
  });
});

/** A peer that writes what it likes. */
class Wire {
  readonly sent: Buffer[] = [];
  readonly failures: Error[] = [];
  readonly streams: ServerStream[] = [];
  ended = false;
  readonly #socket: Duplex;

  constructor(handler: Handler = echo, settings: readonly (readonly [number, number])[] = []) {
    this.#socket = new Duplex({
      read() {},
      write: (chunk: Buffer, _encoding, callback) => {
        this.sent.push(chunk);
        callback();
      },
      final: (callback) => {
        this.ended = true;
        callback();
      },
    });
    new ServerConnection(this.#socket, {
      stream: (stream, headers) => {
        this.streams.push(stream);
        handler(stream, headers);
      },
      closed: () => {},
      failed: (error) => this.failures.push(error),
    });
    this.push(preface, settingsFrame(settings));
  }

  push(...bytes: Uint8Array[]): void {
    for (const one of bytes) this.#socket.emit('data', Buffer.from(one));
  }

  /** The frames that came since the last look, but for settings and windows. */
  async frames(): Promise<{ type: number; flags: number; stream: number; payload: Buffer }[]> {
    await new Promise((resolve) => setImmediate(resolve));
    const bytes = Buffer.concat(this.sent.splice(0));
    const frames = [];
    for (let at = 0; at < bytes.length; ) {
      const length = bytes.readUIntBE(at, 3);
      const payload = bytes.subarray(at + 9, at + 9 + length);
      frames.push({ type: bytes[at + 3]!, flags: bytes[at + 4]!, stream: bytes.readUInt32BE(at + 5), payload });
      at += 9 + length;
    }
    return frames.filter(({ type }) => type !== FrameType.settings && type !== FrameType.windowUpdate);
  }
}

const post = encodeHeaders({ ':method': 'POST', ':scheme': 'http', ':path': '/x' });
const opening = (id: number, flags = 0): Buffer => smallFrame(FrameType.headers, Flag.endHeaders | flags, id, post);

describe('an HTTP/2 connection, byte by byte', () => {
  it('takes frames in pieces of any size, padded and continued ones too', async () => {
    const all = Buffer.concat([
      smallFrame(FrameType.headers, 0, 1, post.subarray(0, 2)),
      smallFrame(FrameType.continuation, Flag.endHeaders, 1, post.subarray(2)),
      smallFrame(FrameType.data, 0, 1, Buffer.from('one ')),
      smallFrame(FrameType.data, Flag.padded, 1, Buffer.from('\u0003two \0\0\0', 'latin1')),
      smallFrame(FrameType.data, Flag.endStream, 1, Buffer.from('three')),
    ]);
    for (const size of [1, 2, 7, 10, all.length]) {
      const wire = new Wire();
      for (let at = 0; at < all.length; at += size) wire.push(all.subarray(at, at + size));
      const frames = await wire.frames();
      assert.deepEqual(
        frames.map(({ type, flags }) => [type, flags]),
        [
          [FrameType.headers, Flag.endHeaders],
          [FrameType.data, 0],
          [FrameType.headers, Flag.endHeaders | Flag.endStream],
        ],
      );
      assert.equal(frames[1]!.payload.toString(), 'one two three');
    }
  });

  it('sends a whole small answer in one write', async () => {
    const wire = new Wire();
    await wire.frames();
    wire.push(Buffer.concat([opening(1), smallFrame(FrameType.data, Flag.endStream, 1, Buffer.from('x'))]));
    assert.equal(wire.sent.length, 1);
  });

  it('waits for room, of the stream and of the connection, and sends trailers without', async () => {
    const wire = new Wire(echo, [[4, 10]]);
    wire.push(opening(1), smallFrame(FrameType.data, Flag.endStream, 1, pattern(25)));
    const size = async () =>
      (await wire.frames()).reduce((sum, one) => sum + (one.type === 0 ? one.payload.length : 0), 0);
    assert.equal(await size(), 10);
    wire.push(numberFrame(FrameType.windowUpdate, 1, 5));
    assert.equal(await size(), 5);
    wire.push(numberFrame(FrameType.windowUpdate, 1, 10));
    assert.equal((await wire.frames()).at(-1)?.flags, Flag.endHeaders | Flag.endStream);
    // What is left of the connection's window is 65,535 less 25.
    wire.push(settingsFrame([[4, 1 << 20]]), opening(3));
    for (let sent = 0; sent < 70_000; sent += 10_000)
      wire.push(smallFrame(FrameType.data, sent === 60_000 ? Flag.endStream : 0, 3, pattern(10_000)));
    assert.equal(await size(), 65_510);
    wire.push(opening(5, Flag.endStream));
    assert.equal((await wire.frames()).at(-1)?.stream, 5);
    wire.push(numberFrame(FrameType.windowUpdate, 0, 10_000));
    assert.equal(await size(), 4490);
  });

  it('gives a stream that is paused no more room', async () => {
    const wire = new Wire((stream) => {
      stream.receiver = { body: () => {}, complete: () => {}, gone: () => {} };
    });
    wire.push(opening(1));
    wire.streams[0]!.pause();
    const room = () => wire.streams[0]!.receiveWindow;
    for (let sent = 0; sent < 1_600_000; sent += 16_000) wire.push(smallFrame(FrameType.data, 0, 1, pattern(16_000)));
    assert.equal(room(), (2 << 20) - 1_600_000);
    wire.streams[0]!.resume();
    assert.equal(room(), 2 << 20);
    // Whoever sends more than it may loses the stream, not the connection.
    wire.streams[0]!.pause();
    for (let sent = 0; sent < 3_000_000; sent += 16_000) wire.push(smallFrame(FrameType.data, 0, 1, pattern(16_000)));
    const reset = (await wire.frames()).find(({ type }) => type === FrameType.resetStream);
    assert.equal(reset?.payload.readUInt32BE(), ErrorCode.flowControl);
    wire.push(smallFrame(FrameType.ping, 0, 0, Buffer.alloc(8)));
    assert.equal((await wire.frames()).at(-1)?.type, FrameType.ping);
  });

  const coded = (...bytes: number[]): Buffer =>
    smallFrame(FrameType.headers, Flag.endHeaders | Flag.endStream, 1, Buffer.from(bytes));
  const failing: [what: string, code: number, frames: () => Uint8Array[]][] = [
    ['an index that there is not', ErrorCode.compression, () => [coded(0xff, 0x7f)]],
    ['a number without end', ErrorCode.compression, () => [coded(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)]],
    ['a text that is cut off', ErrorCode.compression, () => [coded(0x40, 0x05, 0x61)]],
    ['a text that is not in its code', ErrorCode.compression, () => [coded(0x40, 0x81, 0x00, 0x01, 0x61)]],
    ['a frame that is too large', ErrorCode.frameSize, () => [smallFrame(FrameType.data, 0, 1, pattern(16_385))]],
    ['data of no stream', ErrorCode.protocol, () => [smallFrame(FrameType.data, 0, 7, pattern(1))]],
    ['a window over the limit', ErrorCode.flowControl, () => [numberFrame(FrameType.windowUpdate, 0, 2 ** 31 - 1)]],
    ['headers that are cut off', ErrorCode.protocol, () => [smallFrame(FrameType.headers, 0, 1, post), opening(3)]],
    [
      'headers without end',
      ErrorCode.enhanceYourCalm,
      () => [
        smallFrame(FrameType.headers, 0, 1, post),
        ...Array.from({ length: 100 }, () => smallFrame(FrameType.continuation, 0, 1, Buffer.alloc(1))),
      ],
    ],
    [
      'few bytes that are many headers',
      ErrorCode.enhanceYourCalm,
      () => [
        smallFrame(
          FrameType.headers,
          Flag.endHeaders,
          1,
          Buffer.concat([
            Buffer.from([0x40, 1, 0x61, 0x7f, 0xa1, 0x1e]),
            Buffer.alloc(4000, 'x'),
            Buffer.alloc(5000, 0xbe),
          ]),
        ),
      ],
    ],
    [
      'streams that are made and taken back without end',
      ErrorCode.enhanceYourCalm,
      () =>
        Array.from({ length: 40_000 }, (_, index) =>
          Buffer.concat([opening(2 * index + 1), numberFrame(FrameType.resetStream, 2 * index + 1, 8)]),
        ),
    ],
  ];
  for (const [what, code, frames] of failing) {
    it(`ends at ${what}`, async () => {
      const wire = new Wire();
      wire.push(...frames());
      const goAway = (await wire.frames()).find(({ type }) => type === FrameType.goAway);
      assert.equal(goAway?.payload.readUInt32BE(4), code);
      assert.equal(wire.failures.length, 1);
      assert.equal(wire.ended, true);
    });
  }

  it('refuses a request whose headers are none, and goes on', async () => {
    const wire = new Wire();
    for (const [index, headers] of [
      { ':method': 'POST', ':scheme': 'http' },
      { ':method': 'POST', ':scheme': 'http', ':path': '/x', 'Upper-Case': 'x' },
      { ':method': 'POST', ':scheme': 'http', ':path': '/x', connection: 'close' },
      { ':method': 'POST', ':scheme': 'http', ':path': '/x', te: 'gzip' },
      { ':method': 'POST', ':scheme': 'http', 'x-first': 'x', ':path': '/x' },
      { ':method': 'POST', ':scheme': 'http', ':path': '/x', ':unknown': 'x' },
    ].entries()) {
      const id = 2 * index + 1;
      wire.push(smallFrame(FrameType.headers, Flag.endHeaders | Flag.endStream, id, encodeHeaders(headers as never)));
      const [reset, ...more] = await wire.frames();
      assert.deepEqual([reset?.type, reset?.stream, reset?.payload.readUInt32BE()], [3, id, ErrorCode.protocol]);
      assert.equal(more.length, 0);
    }
    assert.equal(wire.streams.length, 0);
    wire.push(opening(99, Flag.endStream));
    assert.equal((await wire.frames()).length, 3);
  });
});
