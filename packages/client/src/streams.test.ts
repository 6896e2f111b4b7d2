import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { describe, it } from 'node:test';
import { EmptySchema } from '@bufbuild/protobuf/wkt';
import { isAny, packAny, unpackAny } from '@gantry/api';
import { StreamInitSchema, Streaming } from '@gantry/api/gen/services/streaming/v1/streaming_pb.js';
import { DataSchema, WindowUpdateSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import { type Implementation, TtrpcServer, ttrpcTransport } from '@gantry/rpc';
import { NamedStream, receiveBytes, sendBytes } from './streams.ts';

/** A daemon with nothing but the Streaming service, and a stream to it. */
async function openStream(
  stream: NonNullable<Implementation<typeof Streaming>['stream']>,
  body: (stream: NamedStream) => Promise<void>,
): Promise<void> {
  const server = new TtrpcServer();
  server.add(Streaming, { stream });
  const [near, far] = duplexPair();
  server.serveConnection(far);
  const transport = ttrpcTransport(near);
  try {
    await using named = await NamedStream.open(transport, 'a-stream');
    await body(named);
  } finally {
    await transport.close();
    await server.close();
  }
}

describe('streams', () => {
  it('sends no more than the receiver takes', { timeout: 10_000 }, async () => {
    const ended = Promise.withResolvers<{ id: string; bytes: number; over: boolean }>();
    await openStream(
      async function* (requests) {
        let id = '';
        let bytes = 0;
        let room = 0;
        let over = false;
        for await (const any of requests) {
          if (isAny(any, StreamInitSchema)) {
            id = unpackAny(StreamInitSchema, any).id;
            yield packAny(EmptySchema, {});
          } else {
            const { data } = unpackAny(DataSchema, any);
            bytes += data.length;
            room -= data.length;
            over ||= room < 0;
          }
          if (room > 0) continue;
          room += 10_000;
          yield packAny(WindowUpdateSchema, { update: 10_000 });
        }
        ended.resolve({ id, bytes, over });
      },
      async (stream) => {
        await sendBytes(
          stream,
          (async function* () {
            for (let i = 0; i < 5; i++) yield new Uint8Array(33_333);
          })(),
        );
        assert.deepEqual(await ended.promise, { id: 'a-stream', bytes: 5 * 33_333, over: false });
      },
    );
  });

  it('stops sending when the receiver leaves', { timeout: 10_000 }, async () => {
    await openStream(
      async function* () {
        yield packAny(EmptySchema, {});
        yield packAny(WindowUpdateSchema, { update: 10 });
      },
      (stream) =>
        sendBytes(
          stream,
          (async function* () {
            for (;;) yield new Uint8Array(100);
          })(),
        ),
    );
  });

  for (const ends of [true, false])
    it(`receives to the end${ends ? '' : ', also of a stream that nobody ends'}`, { timeout: 10_000 }, async () => {
      const size = 5 << 20;
      const sent = Promise.withResolvers<void>();
      await openStream(
        async function* (requests, { signal }) {
          let room = 0;
          let left = size;
          for await (const any of requests) {
            if (isAny(any, StreamInitSchema)) yield packAny(EmptySchema, {});
            else room += unpackAny(WindowUpdateSchema, any).update;
            for (; room > 0 && left > 0; ) {
              const piece = Math.min(room, left, 50_000);
              room -= piece;
              left -= piece;
              yield packAny(DataSchema, { data: new Uint8Array(piece) });
            }
            if (left === 0) break;
          }
          sent.resolve();
          if (!ends) await new Promise((resolve) => signal.addEventListener('abort', resolve));
        },
        async (stream) => {
          let received = 0;
          for await (const bytes of receiveBytes(stream, ends ? undefined : sent.promise)) received += bytes.length;
          assert.equal(received, size);
        },
      );
    });
});
