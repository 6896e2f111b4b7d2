import { Code, failedPrecondition, hasCode, unavailable } from '@gantry/api';
import { repositoryOf } from '@gantry/oci';
import type { RegistryRequest } from './host-client.ts';
import { safeUrl } from './http-error.ts';
import { discard, type HttpResponse, header } from './http-transport.ts';
import type { PushTarget } from './push.ts';
import { acceptPushed, unexpectedAnswer } from './push-answer.ts';

/** Sends a request with the rights and the query of the push. */
export type PushSender = (request: Omit<RegistryRequest, 'scopes'>) => Promise<HttpResponse>;

/** Bytes of a chunk, unless the registry wants larger ones. */
const chunkSize = 8 << 20;
/** What a registry, or a proxy before it, must not refuse. */
const smallestChunk = 256 << 10;

/** Says that a blob is not taken in one piece; that it may be in several. */
const refusesWhole = new Set([404, 405, 411, 413, 415, 501]);

/** One blob: a POST, and one PUT of the whole; PATCHes of one chunk after another where that is refused. */
export class BlobUpload {
  readonly #target: PushTarget;
  readonly #send: PushSender;

  constructor(target: PushTarget, send: PushSender) {
    this.#target = target;
    this.#send = send;
  }

  /** `started`: the answer to a POST that began an upload. */
  async run(started?: HttpResponse): Promise<void> {
    const { descriptor } = this.#target;
    const session = await Session.from(started ?? (await this.#start()));
    const response = await this.#send({
      method: 'PUT',
      path: session.withDigest(descriptor.digest),
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(descriptor.size) },
      body: () => this.#whole(),
      patient: false,
    });
    if (!refusesWhole.has(response.status)) {
      await acceptPushed(response, 'PUT', descriptor.digest);
      return;
    }
    await discard(response);
    await this.#inChunks(await Session.from(await this.#start()));
  }

  #start(): Promise<HttpResponse> {
    const path = `/${repositoryOf(this.#target.reference)}/blobs/uploads/`;
    return this.#send({ method: 'POST', path, headers: { 'content-length': '0' } });
  }

  async *#whole(): AsyncGenerator<Uint8Array> {
    const { descriptor, options } = this.#target;
    let sent = 0;
    for await (const chunk of options.open()) {
      yield chunk;
      sent += chunk.length;
      options.onProgress?.(sent);
    }
    if (sent !== descriptor.size) throw wrongSize(sent, descriptor.size);
  }

  async #inChunks(session: Session): Promise<void> {
    const { descriptor, options } = this.#target;
    let sent = 0;
    let limit = Math.max(chunkSize, session.minChunk);
    for await (const chunk of chunksOf(options.open(), limit)) {
      for (let at = 0; at < chunk.length; ) {
        const part = chunk.subarray(at, at + limit);
        const taken = await this.#patch(session, part, sent);
        if (taken === 'too large') {
          if (limit <= Math.max(smallestChunk, session.minChunk))
            throw unavailable(`${session.url.host} takes no chunk`);
          limit = Math.max(smallestChunk, session.minChunk, limit >> 1);
          continue;
        }
        at += taken;
        sent += taken;
        options.onProgress?.(sent);
      }
    }
    if (sent !== descriptor.size) throw wrongSize(sent, descriptor.size);
    const path = session.withDigest(descriptor.digest);
    const response = await this.#send({ method: 'PUT', path, headers: { 'content-length': '0' } });
    await acceptPushed(response, 'PUT', descriptor.digest);
  }

  /** Answers how many bytes of the chunk the registry has now; one that broke off is asked how far it came. */
  async #patch(session: Session, chunk: Buffer, start: number): Promise<number | 'too large'> {
    try {
      const response = await this.#send({
        method: 'PATCH',
        path: session.url,
        headers: {
          'content-type': 'application/octet-stream',
          'content-length': String(chunk.length),
          'content-range': `${start}-${start + chunk.length - 1}`,
        },
        body: chunk,
        patient: false,
      });
      if (response.status === 413) {
        await discard(response);
        return 'too large';
      }
      if (response.status === 416) return await this.#progress(session, start, chunk.length, response);
      if (response.status !== 202) throw await unexpectedAnswer(response, 'PATCH');
      await session.follow(response);
      return chunk.length;
    } catch (error) {
      if (!hasCode(error, Code.Unavailable)) throw error;
      return await this.#progress(session, start, chunk.length);
    }
  }

  async #progress(session: Session, start: number, length: number, refused?: HttpResponse): Promise<number> {
    if (refused) await discard(refused);
    const response = await this.#send({ method: 'GET', path: session.url });
    if (response.status !== 204 && response.status !== 200) throw await unexpectedAnswer(response, 'GET');
    const last = /^(?:bytes=)?0-(\d+)$/.exec(header(response, 'range') ?? '')?.[1];
    await session.follow(response);
    const gained = (last === undefined ? 0 : Number(last) + 1) - start;
    // Before this chunk: what went before is not at hand any more. Nothing gained: the next try begins a new upload.
    if (gained <= 0 || gained > length) {
      throw unavailable(`upload at ${safeUrl(session.url)} stopped at byte ${start + Math.max(0, gained)}`);
    }
    return gained;
  }
}

/** Where an upload goes on; each answer may name another place. */
class Session {
  url: URL;
  readonly minChunk: number;

  private constructor(url: URL, minChunk: number) {
    this.url = url;
    this.minChunk = minChunk;
  }

  static async from(response: HttpResponse): Promise<Session> {
    const location = header(response, 'location');
    if (response.status !== 202 || location === undefined || !URL.canParse(location, response.url)) {
      throw await unexpectedAnswer(response, 'POST');
    }
    await discard(response);
    const minimum = Number(header(response, 'oci-chunk-min-length') ?? 0);
    return new Session(new URL(location, response.url), Number.isSafeInteger(minimum) ? Math.min(minimum, 1 << 30) : 0);
  }

  async follow(response: HttpResponse): Promise<void> {
    const location = header(response, 'location');
    await discard(response);
    if (location !== undefined && URL.canParse(location, response.url)) this.url = new URL(location, response.url);
  }

  withDigest(digest: string): URL {
    const url = new URL(this.url);
    url.searchParams.set('digest', digest);
    return url;
  }
}

/** Puts pieces together until they have `size` bytes; the last may be shorter. */
async function* chunksOf(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Buffer> {
  let chunk = Buffer.allocUnsafe(size);
  let fill = 0;
  for await (const piece of source) {
    for (let at = 0; at < piece.length; ) {
      const count = Math.min(piece.length - at, size - fill);
      chunk.set(piece.subarray(at, at + count), fill);
      fill += count;
      at += count;
      if (fill < size) continue;
      yield chunk;
      chunk = Buffer.allocUnsafe(size);
      fill = 0;
    }
  }
  if (fill > 0) yield chunk.subarray(0, fill);
}

function wrongSize(actual: number, expected: number): Error {
  return failedPrecondition(`unexpected size ${actual}, expected ${expected}: failed precondition`);
}
