import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { duplexPair } from 'node:stream';
import { describe, it } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, hasCode } from '@gantry/api';
import { RequestSchema, ResponseSchema } from '@gantry/api/gen/ttrpc/request_pb.js';
import { createClient } from './client.ts';
import { asTestClient, TestService, testImplementation, toArray } from './testing-service.ts';
import { transportSuite } from './transport-suite.ts';
import { ttrpcTransport } from './ttrpc-client.ts';
import { encodeFrame, type Frame, FrameFlag, FrameReader, FrameType, maxFrameData } from './ttrpc-frames.ts';
import { TtrpcServer } from './ttrpc-server.ts';

describe('ttrpc', () => {
  transportSuite({
    name: 'ttrpc',
    // The limit is that of a frame, which has more in it than the message.
    limit: maxFrameData,
    async connect(options) {
      const dir = mkdtempSync(path.join(os.tmpdir(), 'gantry-rpc-'));
      const server = new TtrpcServer(options);
      await server.listenUnix(path.join(dir, 'x.sock'));
      const socket = net.connect(path.join(dir, 'x.sock'));
      const transport = ttrpcTransport(socket);
      await transport.ready();
      return {
        server,
        transport,
        sever: () => socket.destroy(),
        close: async () => {
          await transport.close();
          await server.close();
          rmSync(dir, { recursive: true });
        },
      };
    },
  });

  it('runs over any duplex stream', async () => {
    const [near, far] = duplexPair();
    const server = new TtrpcServer();
    server.add(TestService, testImplementation({ one: ({ text }) => ({ text }) }));
    server.serveConnection(far);
    const transport = ttrpcTransport(near);
    assert.equal((await asTestClient(createClient(TestService, transport)).one({ text: 'a' })).text, 'a');
    await transport.close();
    await server.close();
  });

  it('listens on abstract names and says when a connection closes', async () => {
    const server = new TtrpcServer();
    server.add(TestService, testImplementation({ one: ({ text }) => ({ text }) }));
    const name = `gantry-rpc-test-${process.pid}`;
    await server.listenUnix(`\0${name}`);
    const transport = ttrpcTransport(`unix://\0${name}`);
    assert.equal((await asTestClient(createClient(TestService, transport)).one({ text: 'a' })).text, 'a');
    const closed = new Promise((resolve) => transport.onClose(resolve));
    await server.close();
    assert.equal(await closed, undefined);
    assert.equal(transport.closed, true);
    await assert.rejects(asTestClient(createClient(TestService, transport)).one({}), (reason) =>
      hasCode(reason, Code.Unavailable),
    );
    const nobody = ttrpcTransport(`@${name}`);
    await assert.rejects(nobody.ready(), (reason) => hasCode(reason, Code.Unavailable));
  });
});

/** A server with a bare connection to it, on which a test says what it likes. */
function rawConnection(): {
  send(...bytes: Uint8Array[]): void;
  next(): Promise<Frame>;
  status(frame: Frame): { code: number | undefined; message: string | undefined; payload: Uint8Array };
  close(): Promise<void>;
} {
  const server = new TtrpcServer();
  server.add(
    TestService,
    testImplementation({
      one: ({ text }) => ({ text }),
      into: async (requests) => ({ text: (await toArray(requests)).join('+') }),
    }),
  );
  const [near, far] = duplexPair();
  server.serveConnection(far);
  const frames: Frame[] = [];
  let wake: (() => void) | undefined;
  const reader = new FrameReader(
    (frame) => {
      frames.push(frame);
      wake?.();
    },
    () => assert.fail('the server sent too much'),
  );
  near.on('data', (chunk: Buffer) => reader.write(chunk));
  return {
    send: (...bytes) => {
      for (const chunk of bytes) near.write(chunk);
    },
    next: async () => {
      while (frames.length === 0)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      return frames.shift()!;
    },
    status: (frame) => {
      assert.equal(frame.type, FrameType.Response);
      const { status, payload } = fromBinary(ResponseSchema, frame.data);
      return { code: status?.code, message: status?.message, payload };
    },
    close: async () => {
      near.destroy();
      await server.close();
    },
  };
}

const request = (id: number, method: string, text = '', flags = 0) =>
  encodeFrame(
    id,
    FrameType.Request,
    flags,
    toBinary(
      RequestSchema,
      create(RequestSchema, {
        service: 'gantry.test.Test',
        method,
        payload: text
          ? toBinary(TestService.method['one']!.input, create(TestService.method['one']!.input, { text } as never))
          : new Uint8Array(),
      }),
    ),
  );

describe('hostile ttrpc frames', () => {
  const test = (name: string, body: (raw: ReturnType<typeof rawConnection>) => Promise<void>) =>
    it(name, { timeout: 10_000 }, async () => {
      const raw = rawConnection();
      try {
        await body(raw);
        // Whatever came before, the connection still serves.
        raw.send(request(0xffffff01, 'One', 'alive'));
        for (;;) {
          const frame = await raw.next();
          if (frame.streamId !== 0xffffff01) continue;
          assert.equal(raw.status(frame).code, 0);
          return;
        }
      } finally {
        await raw.close();
      }
    });

  test('one byte at a time', async (raw) => {
    for (const byte of request(1, 'One', 'slow')) raw.send(Uint8Array.of(byte));
    assert.equal(raw.status(await raw.next()).code, 0);
  });

  test('even, reused and falling stream ids', async (raw) => {
    raw.send(request(2, 'One'));
    assert.deepEqual(raw.status(await raw.next()).message, 'StreamID must be odd for client initiated streams');
    raw.send(request(5, 'One'));
    assert.equal(raw.status(await raw.next()).code, 0);
    for (const id of [5, 3]) {
      raw.send(request(id, 'One'));
      const frame = await raw.next();
      assert.equal(frame.streamId, id);
      assert.equal(raw.status(frame).message, 'StreamID cannot be re-used and must increment');
    }
  });

  test('a request that is no message, and an empty one', async (raw) => {
    raw.send(encodeFrame(1, FrameType.Request, 0, Uint8Array.of(0xff, 0xff, 0xff)));
    assert.equal(raw.status(await raw.next()).code, Code.InvalidArgument);
    raw.send(encodeFrame(3, FrameType.Request, 0, new Uint8Array()));
    assert.equal(raw.status(await raw.next()).code, Code.Unimplemented);
  });

  test('a payload that is no message', async (raw) => {
    const bad = create(RequestSchema, {
      service: 'gantry.test.Test',
      method: 'One',
      payload: Uint8Array.of(0x0a, 0xff),
    });
    raw.send(encodeFrame(1, FrameType.Request, 0, toBinary(RequestSchema, bad)));
    assert.equal(raw.status(await raw.next()).code, Code.Internal);
  });

  test('data for no stream, for a unary call that is over, after the end', async (raw) => {
    raw.send(encodeFrame(7, FrameType.Data, 0, Uint8Array.of(1)));
    assert.equal(raw.status(await raw.next()).message, 'StreamID is no longer active');
    raw.send(request(9, 'One'));
    assert.equal(raw.status(await raw.next()).code, 0);
    raw.send(encodeFrame(9, FrameType.Data, FrameFlag.RemoteClosed, new Uint8Array()));
    assert.equal(raw.status(await raw.next()).message, 'StreamID is no longer active');
  });

  test('a request stream in pieces, ended by a data frame without data', async (raw) => {
    const item = toBinary(
      TestService.method['one']!.input,
      create(TestService.method['one']!.input, { text: 'b' } as never),
    );
    raw.send(
      request(1, 'Into', 'a', FrameFlag.RemoteOpen),
      encodeFrame(1, FrameType.Data, 0, item),
      encodeFrame(1, FrameType.Data, FrameFlag.RemoteClosed | FrameFlag.NoData, new Uint8Array()),
    );
    const { payload } = raw.status(await raw.next());
    assert.equal((fromBinary(TestService.method['one']!.input, payload) as unknown as { text: string }).text, 'a+b');
  });

  test('an oversized frame is thrown away, not kept', async (raw) => {
    const header = encodeFrame(11, FrameType.Request, 0, new Uint8Array());
    header.writeUInt32BE(maxFrameData + 1, 0);
    raw.send(header);
    assert.match(
      raw.status(await raw.next()).message!,
      /^message length 4194305 exceed maximum message size of 4194304$/,
    );
    for (let left = maxFrameData + 1; left > 0; left -= 65536) raw.send(new Uint8Array(Math.min(left, 65536)));
  });

  test('unknown frame types are ignored', async (raw) => {
    raw.send(
      encodeFrame(1, 0, 0, new Uint8Array(3)),
      encodeFrame(1, 200, 255, new Uint8Array(3)),
      encodeFrame(1, FrameType.Response, 0, new Uint8Array()),
    );
  });

  it('a connection that ends within a frame cancels nothing but itself', async () => {
    const raw = rawConnection();
    raw.send(request(1, 'One', 'x').subarray(0, 12));
    await raw.close();
  });

  it('a client fails its calls on answers that make no sense', async () => {
    const [near, far] = duplexPair();
    const transport = ttrpcTransport(near);
    const client = asTestClient(createClient(TestService, transport));
    const first = assert.rejects(client.one({}), (reason) => hasCode(reason, Code.Internal));
    const second = assert.rejects(client.one({}), (reason) => hasCode(reason, Code.Internal));
    const third = assert.rejects(client.one({}), (reason) => hasCode(reason, Code.ResourceExhausted));
    far.write(encodeFrame(99, FrameType.Response, 0, new Uint8Array()));
    far.write(encodeFrame(1, FrameType.Response, 0, Uint8Array.of(0xff)));
    far.write(encodeFrame(3, FrameType.Data, 0, new Uint8Array()));
    const header = encodeFrame(5, FrameType.Response, 0, new Uint8Array());
    header.writeUInt32BE(0xffffffff, 0);
    far.write(header);
    await Promise.all([first, second, third]);
    near.destroy();
    far.destroy();
  });
});
