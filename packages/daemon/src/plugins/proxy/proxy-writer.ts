import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, failedPrecondition, fromTimestamp, hasCode, now, StatusError, unavailable } from '@gantry/api';
import {
  type Content,
  WriteAction,
  type WriteContentRequestSchema,
  type WriteContentResponse,
} from '@gantry/api/gen/services/content/v1/content_pb.js';
import { type Client, MessageQueue } from '@gantry/rpc';
import type { BackendWriter, CommitOptions, IngestStatus, WriterOptions } from '../../core/content/content-store.ts';
import type { RequestContext } from '../../core/request-context.ts';
import type { ProxyConnection } from './proxy-connection.ts';

type Request = MessageInitShape<typeof WriteContentRequestSchema>;

/** Bytes of one message: well below what servers take by default (4 MiB). */
const pieceSize = 1 << 20;
/** Keeps a blob from the collector of a daemon on the other side, which knows nothing of what this one refers to. */
const heldLabel = 'containerd.io/gc.root';

/** A writer over one Content.Write call, which holds the ref for as long as it lasts. */
export class ProxyWriter implements BackendWriter {
  readonly #connection: ProxyConnection;
  readonly #client: Client<typeof Content>;
  readonly #ctx: RequestContext | undefined;
  readonly #requests = new MessageQueue<Request>();
  readonly #answers: AsyncIterator<WriteContentResponse>;
  readonly #status: IngestStatus;
  #digest = '';
  #over: 'closed' | 'committed' | StatusError | undefined;

  private constructor(
    connection: ProxyConnection,
    client: Client<typeof Content>,
    { ref, size = 0, expected = '' }: WriterOptions,
    ctx: RequestContext | undefined,
  ) {
    this.#connection = connection;
    this.#client = client;
    this.#ctx = ctx;
    const at = now();
    this.#status = { ref, offset: 0, total: size, expected, startedAt: at, updatedAt: at };
    this.#answers = connection.stream(client.write(this.#requests, connection.options(ctx)));
  }

  /** @throws Unavailable if another writer has the ref, AlreadyExists for an expected blob that is there */
  static async open(
    connection: ProxyConnection,
    client: Client<typeof Content>,
    options: WriterOptions,
    ctx: RequestContext | undefined,
  ): Promise<ProxyWriter> {
    const writer = new ProxyWriter(connection, client, options, ctx);
    const status = writer.#status;
    const { ref, total, expected } = status;
    const answer = await writer.#send({ action: WriteAction.STAT, ref, total: BigInt(total), expected });
    status.startedAt = fromTimestamp(answer.startedAt) ?? status.startedAt;
    // A server tells what this call said of the size; what an earlier one said is in its list.
    if (total === 0 && status.offset > 0) {
      try {
        const earlier = await connection.call(client.status({ ref }, connection.options(ctx)));
        status.total = Number(earlier.status?.total ?? 0n);
      } catch (error) {
        await writer.close();
        throw error;
      }
    }
    return writer;
  }

  status(): IngestStatus {
    return { ...this.#status };
  }

  async digest(): Promise<string> {
    return this.#digest;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#checkOpen();
    const { ref } = this.#status;
    for (let at = 0; at < chunk.length; at += pieceSize) {
      const data = chunk.subarray(at, at + pieceSize);
      await this.#send({ action: WriteAction.WRITE, ref, offset: BigInt(this.#status.offset), data });
    }
  }

  async truncate(size: number): Promise<void> {
    if (size !== 0) throw new StatusError(Code.Unimplemented, `cannot truncate ${this.#status.ref} to ${size} bytes`);
    if (this.#status.offset === 0) return;
    // A write at 0 begins anew, also one of no bytes.
    await this.#send({ action: WriteAction.WRITE, ref: this.#status.ref, offset: 0n });
  }

  async commit({
    size = 0,
    expected = '',
    labels = {},
  }: CommitOptions = {}): Promise<{ digest: string; size: number }> {
    const { ref, offset } = this.#status;
    const held = { ...labels, [heldLabel]: new Date().toISOString() };
    const request = { ref, total: BigInt(size), expected, offset: BigInt(offset), labels: held };
    try {
      const answer = await this.#send({ action: WriteAction.COMMIT, ...request });
      await this.#end('committed');
      return { digest: answer.digest, size: Number(answer.offset) };
    } catch (error) {
      if (hasCode(error, Code.AlreadyExists)) await this.#hold(expected || this.#digest);
      throw error;
    }
  }

  async #hold(digest: string): Promise<void> {
    const info = { digest, labels: { [heldLabel]: new Date().toISOString() } };
    const updateMask = { paths: [`labels.${heldLabel}`] };
    // Not every server keeps labels; those that do not have no use for it.
    await this.#client.update({ info, updateMask }, this.#connection.options(this.#ctx)).catch(() => undefined);
  }

  async close(): Promise<void> {
    if (this.#over === undefined) await this.#end('closed');
  }

  #checkOpen(): void {
    if (this.#over instanceof StatusError) throw this.#over;
    if (this.#over) throw failedPrecondition(`writer of ${this.#status.ref} is ${this.#over}: failed precondition`);
  }

  async #send(request: Request): Promise<WriteContentResponse> {
    this.#checkOpen();
    this.#requests.push(request);
    try {
      const { done, value } = await this.#answers.next();
      if (done) throw unavailable(`the other side ended the writing of ${this.#status.ref}`);
      this.#status.offset = Number(value.offset);
      this.#status.updatedAt = fromTimestamp(value.updatedAt) ?? now();
      this.#digest = value.digest;
      return value;
    } catch (error) {
      this.#over = StatusError.from(error);
      this.#requests.end();
      throw error;
    }
  }

  /** Ends the call and waits until the other side has, so that the ref is free afterwards. */
  async #end(how: 'closed' | 'committed'): Promise<void> {
    this.#over = how;
    this.#requests.end();
    try {
      while (!(await this.#answers.next()).done);
    } catch {
      // It has ended all the same, and so has its hold on the ref.
    }
  }
}
