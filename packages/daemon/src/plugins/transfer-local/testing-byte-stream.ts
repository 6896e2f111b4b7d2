import assert from 'node:assert/strict';
import type { Any } from '@bufbuild/protobuf/wkt';
import { packAny, unpackAny } from '@gantry/api';
import { DataSchema, WindowUpdateSchema } from '@gantry/api/gen/types/transfer/streaming_pb.js';
import type { MessageStream } from '../../core/streaming/stream-manager.ts';

/** A client's end of a stream that sends or takes bytes. */
export class ByteStream implements MessageStream {
  received: Buffer[] = [];
  isClosed = false;
  readonly #toSend: Buffer[];
  readonly closed: Promise<void>;
  #resolve: () => void = () => undefined;
  #window = 0;

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    this.#toSend = [];
    for (let at = 0; at < bytes.length; at += 1000) this.#toSend.push(bytes.subarray(at, at + 1000));
    this.closed = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  send(message: Any): void {
    if (message.typeUrl.endsWith('Data')) {
      const { data } = unpackAny(DataSchema, message);
      this.#window -= data.length;
      assert.ok(this.#window >= 0, 'more was sent than the window allows');
      this.received.push(Buffer.from(data));
    }
  }

  async receive(): Promise<Any | undefined> {
    const next = this.#toSend.shift();
    if (next) return packAny(DataSchema, { data: next });
    if (this.isSender) return undefined;
    this.#window += 64 * 1024;
    return packAny(WindowUpdateSchema, { update: 64 * 1024 });
  }

  isSender = false;

  close(): void {
    this.isClosed = true;
    this.#resolve();
  }
}
