import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, hasCode, unavailable } from '@gantry/api';
import {
  type Content as ContentService,
  WriteAction,
  type WriteContentRequestSchema,
  type WriteContentResponse,
} from '@gantry/api/gen/services/content/v1/content_pb.js';
import { type CallOptions, type Client, MessageQueue } from '@gantry/rpc';
import type { IngestOptions } from './content.ts';

/** Bytes that go into one message; well below every daemon's limit. */
const pieceSize = 1 << 20;

type Request = MessageInitShape<typeof WriteContentRequestSchema>;

/**
 * One write to the content store: a conversation, each request answered with where the write stands. What was written stays
 * when a writer closes without a commit, until it is resumed or aborted.
 */
export class ContentWriter implements AsyncDisposable {
  readonly ref: string;
  readonly #settings: IngestOptions;
  readonly #requests = new MessageQueue<Request>();
  readonly #answers: AsyncIterator<WriteContentResponse>;
  #offset = 0;
  #digest = '';

  /** @throws StatusError as `Content.writer` */
  static async open(
    service: Client<typeof ContentService>,
    ref: string,
    settings: IngestOptions,
    options?: CallOptions,
  ): Promise<ContentWriter> {
    const writer = new ContentWriter(service, ref, settings, options);
    await writer.#ask({ action: WriteAction.STAT });
    return writer;
  }

  private constructor(
    service: Client<typeof ContentService>,
    ref: string,
    settings: IngestOptions,
    options: CallOptions | undefined,
  ) {
    this.ref = ref;
    this.#settings = settings;
    this.#answers = service.write(this.#requests, options)[Symbol.asyncIterator]();
  }

  /** Bytes that are there. */
  get offset(): number {
    return this.#offset;
  }

  /** Appends; resolves when the daemon has them. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength; at += pieceSize) {
      const data = bytes.subarray(at, at + pieceSize);
      await this.#ask({ action: WriteAction.WRITE, offset: BigInt(this.#offset), data });
    }
  }

  /** Drops what was written, so that the next write is the first: for bytes that could differ from those of a broken attempt. */
  async restart(): Promise<void> {
    if (this.#offset > 0) await this.#ask({ action: WriteAction.WRITE, offset: 0n });
  }

  /**
   * Ends the write: the blob is there under its digest, with these labels or those it was opened with. One that was there
   * already is as good, and keeps its labels.
   * @throws StatusError FailedPrecondition if size or digest are not as expected
   */
  async commit(labels = this.#settings.labels): Promise<{ digest: string; size: number }> {
    const { expected, size } = this.#settings;
    try {
      await this.#ask({
        action: WriteAction.COMMIT,
        offset: BigInt(this.#offset),
        total: BigInt(size ?? this.#offset),
        ...(labels ? { labels } : {}),
      });
    } catch (reason) {
      if (!hasCode(reason, Code.AlreadyExists)) throw reason;
      const digest = expected ?? /sha\d+:[0-9a-f]+/.exec(reason.message)?.[0];
      if (!digest) throw reason;
      this.#digest = digest;
    }
    await this.close();
    return { digest: this.#digest, size: this.#offset };
  }

  /** Leaves the write where it is. */
  async close(): Promise<void> {
    this.#requests.end();
    // A broken call has told its error before; here it only ends.
    await this.#answers.next().catch(() => {});
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #ask(request: Request): Promise<void> {
    const { expected = '', size = 0 } = this.#settings;
    this.#requests.push({ ref: this.ref, expected, total: BigInt(size), ...request });
    const { done, value } = await this.#answers.next();
    if (done) throw unavailable(`the write of ${this.ref} was closed by the server`);
    this.#offset = Number(value.offset);
    if (value.digest) this.#digest = value.digest;
  }
}
