import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { Any } from '@bufbuild/protobuf/wkt';
import { packAny, unpackAny } from '@gantry/api';
import { DataSchema, WindowUpdateSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import { ByteSender } from './byte-stream.ts';
import type { MessageStream } from './message-stream.ts';

test('sent bytes are the Data messages that anybody reads, also when the source is overwritten and the window is narrow', async () => {
  const sent: Any[] = [];
  const windows = [1, 127, 128, 5000, 100_000, 1 << 22];
  const stream: MessageStream = {
    send: (message) => void sent.push(message),
    receive: async () => packAny(WindowUpdateSchema, { update: windows.shift() ?? 1 << 22 }),
    close() {},
    closed: Promise.resolve(),
  };
  const sender = new ByteSender(stream);
  const source = randomBytes(300_000);
  const expected = Buffer.concat(Array.from({ length: 5 }, () => source));
  for (let round = 0; round < 5; round++) {
    const piece = Buffer.from(source);
    await sender.write(piece);
    piece.fill(0);
  }
  assert.ok(sent.length > 45);
  const pieces = sent.map((message) => unpackAny(DataSchema, message).data);
  assert.deepEqual(
    pieces.slice(0, 4).map(({ length }) => length),
    [1, 127, 128, 5000],
  );
  assert.ok(Buffer.concat(pieces).equals(expected));
});
