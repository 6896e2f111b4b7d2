import { setTimeout as sleep } from 'node:timers/promises';
import { Code, failedPrecondition, hasCode, StatusError } from '@gantry/api';
import { requestFailed } from './http-error.ts';
import { answerOf, type BlobRequest, type OpenBlob, openBlob } from './open-blob.ts';

/** The bytes of a blob, going on after a broken connection at the byte where it broke. */
export interface BlobSource extends AsyncIterable<Uint8Array> {
  /**
   * The last answer that bytes came from, as `GET https://host/v2/… (200 OK)`; '' before the first. For messages about bytes
   * that turned out wrong.
   */
  readonly origin: string;

  /**
   * Tells that the bytes were wrong: the client does not ask the endpoint that they came from for this blob again, while
   * there are others. True if there are others to try.
   */
  distrust(): boolean;
}

/** So many times in a row may a connection break without gaining anything worth the name. */
const maxFailures = 5;
/** A connection that brought this much is not one of those. */
const worthwhile = 64 << 10;

export class BlobReader implements BlobSource {
  readonly #request: BlobRequest;
  #opened: OpenBlob | undefined;
  /** Where bytes came from last. */
  #last: OpenBlob | undefined;

  /** `opened`: an answer that has come already, for the first byte wanted. */
  constructor(request: BlobRequest, opened?: OpenBlob) {
    this.#request = request;
    this.#opened = opened;
  }

  get origin(): string {
    return this.#last ? answerOf(this.#last.response) : '';
  }

  distrust(): boolean {
    if (!this.#last) return false;
    const { avoided } = this.#request;
    avoided.add(this.#last.host);
    return this.#last.hosts.some((host) => !avoided.has(host));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    const { descriptor, start, end, avoided, signal } = this.#request;
    let position = start;
    let failures = 0;
    if (position === end && descriptor.size > 0) return;
    for (;;) {
      const opened = this.#opened ?? (await openBlob(this.#request, position));
      this.#opened = undefined;
      const { response, host } = opened;
      this.#last = opened;
      const began = position;
      let { skip } = opened;
      try {
        for await (const piece of response.body as AsyncIterable<Buffer>) {
          const chunk = skip > 0 ? piece.subarray(Math.min(skip, piece.length)) : piece;
          skip -= piece.length - chunk.length;
          if (chunk.length === 0) continue;
          if (position + chunk.length > end) {
            // One that ignores the end of a range goes on with what follows; anything after the blob is a lie.
            if (end === descriptor.size) throw tooMuch(answerOf(response), descriptor);
            const last = chunk.subarray(0, end - position);
            position = end;
            if (last.length > 0) yield last;
            break;
          }
          position += chunk.length;
          yield chunk;
        }
        if (position === end) return;
        const ended = new Error(`connection ended at byte ${position} of ${descriptor.size}: unexpected EOF`);
        throw requestFailed({ method: 'GET', url: response.url }, ended);
      } catch (error) {
        signal?.throwIfAborted();
        const broken =
          error instanceof StatusError ? error : requestFailed({ method: 'GET', url: response.url }, error);
        if (!hasCode(broken, Code.Unavailable)) throw broken;
        if (position - began >= worthwhile) failures = 0;
        if (++failures > maxFailures) throw broken;
        if (failures > 1) avoided.add(host);
        await sleep(100 * 2 ** (failures - 1), undefined, { ...(signal && { signal }) });
      } finally {
        // Read to its end it is closed already; else nobody wants the rest.
        response.body.destroy();
      }
    }
  }
}

function tooMuch(origin: string, { size, digest }: BlobRequest['descriptor']): Error {
  return failedPrecondition(
    `failed size validation: ${origin} sent more than the ${size} bytes that the descriptor of ${digest} says: failed precondition`,
  );
}
