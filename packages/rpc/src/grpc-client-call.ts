// One call on the client's side of gRPC, from its headers to the status the server gives, or the error it ends with without one.
import { type ClientHttp2Session, type ClientHttp2Stream, constants, type IncomingHttpHeaders } from 'node:http2';
import { Code, deadlineExceeded, StatusError, unavailable } from '@gantry/api';
import { abortError } from './abort-error.ts';
import { FrameReader } from './grpc-frames.ts';
import { statusOf } from './grpc-status.ts';
import type { CallOptions } from './service.ts';

/** What the caller of a stream is told. */
export interface ClientCallEvents {
  message(bytes: Uint8Array): void;
  /** Once. `refused`: the server says that it did nothing, so the call may be made again. */
  end(error: StatusError | undefined, refused: boolean): void;
}

export class GrpcClientCall {
  readonly stream: ClientHttp2Stream;
  readonly #session: ClientHttp2Session;
  readonly #events: ClientCallEvents;
  readonly #signal: AbortSignal | undefined;
  readonly #abort: (() => void) | undefined;
  #deadline: NodeJS.Timeout | undefined;
  /** The server's status, once it is there; null is success. */
  #status: StatusError | null | undefined;
  /** Why we gave up ourselves. */
  #own: StatusError | undefined;
  #broken: Error | undefined;
  #over = false;

  constructor(
    session: ClientHttp2Session,
    stream: ClientHttp2Stream,
    limit: number,
    options: CallOptions,
    events: ClientCallEvents,
  ) {
    this.stream = stream;
    this.#session = session;
    this.#events = events;
    const { signal, timeoutMs } = options;
    if (signal) {
      this.#signal = signal;
      this.#abort = () => this.cancel(abortError(signal));
      signal.addEventListener('abort', this.#abort);
    }
    if (timeoutMs !== undefined && timeoutMs < 2 ** 31)
      this.#deadline = setTimeout(() => this.cancel(deadlineExceeded('context deadline exceeded')), timeoutMs);
    const reader = new FrameReader(limit, (message) => events.message(message));
    stream.on('response', (headers) => this.#answered(headers));
    stream.on('trailers', (trailers) => this.#takeStatus(trailers));
    stream.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      try {
        reader.push(chunk);
      } catch (reason) {
        this.cancel(StatusError.from(reason));
      }
    });
    stream.on('error', (error) => {
      this.#broken = error;
    });
    stream.on('end', () => {
      if (this.#status !== undefined) this.#finish();
    });
    stream.on('close', () => this.#finish());
  }

  /** Ends the call at once with an error of our own. */
  cancel(reason: StatusError): void {
    if (this.#over) return;
    this.#own = reason;
    this.#finish();
    this.stream.close(constants.NGHTTP2_CANCEL);
  }

  #answered(headers: IncomingHttpHeaders): void {
    if (headers['grpc-status'] !== undefined) this.#takeStatus(headers);
    else if (Number(headers[':status']) !== 200) this.#status = fromHttpStatus(Number(headers[':status']));
    else if (!headers['content-type']?.startsWith('application/grpc'))
      this.cancel(new StatusError(Code.Unknown, `unexpected content-type ${headers['content-type'] ?? 'of none'}`));
  }

  #takeStatus(trailers: IncomingHttpHeaders): void {
    if (trailers['grpc-status'] !== undefined) this.#status = statusOf(trailers) ?? null;
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#deadline);
    if (this.#abort) this.#signal?.removeEventListener('abort', this.#abort);
    const refused =
      this.#own === undefined && this.#status === undefined && this.stream.rstCode === constants.NGHTTP2_REFUSED_STREAM;
    this.#events.end(this.#own ?? (this.#status === undefined ? this.#lost() : (this.#status ?? undefined)), refused);
  }

  /** The error of a call that ended without a status. */
  #lost(): StatusError {
    const error = this.#broken;
    if (this.#session.destroyed)
      return unavailable(`connection error: ${error?.message ?? 'the connection was closed'}`, error);
    const code = resetCodes[this.stream.rstCode ?? 0] ?? Code.Internal;
    const name = resetNames[this.stream.rstCode ?? 0];
    const message =
      this.stream.rstCode === constants.NGHTTP2_NO_ERROR
        ? 'server closed the stream without sending trailers'
        : `stream terminated by RST_STREAM with error code: ${name ?? this.stream.rstCode}`;
    return new StatusError(code, message, error ? { cause: error } : {});
  }
}

/** gRPC over HTTP/2, "HTTP2 Transport Mapping: Errors". */
const resetCodes: Record<number, Code> = {
  [constants.NGHTTP2_REFUSED_STREAM]: Code.Unavailable,
  [constants.NGHTTP2_CANCEL]: Code.Canceled,
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: Code.ResourceExhausted,
  [constants.NGHTTP2_INADEQUATE_SECURITY]: Code.PermissionDenied,
};

/** RFC 9113, section 7. */
const resetNames = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'INTERNAL_ERROR',
  'FLOW_CONTROL_ERROR',
  'SETTINGS_TIMEOUT',
  'STREAM_CLOSED',
  'FRAME_SIZE_ERROR',
  'REFUSED_STREAM',
  'CANCEL',
  'COMPRESSION_ERROR',
  'CONNECT_ERROR',
  'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY',
  'HTTP_1_1_REQUIRED',
];

/** gRPC's "HTTP to gRPC Status Code Mapping". */
function fromHttpStatus(status: number): StatusError {
  const codes: Record<number, Code> = {
    400: Code.Internal,
    401: Code.Unauthenticated,
    403: Code.PermissionDenied,
    404: Code.Unimplemented,
    429: Code.Unavailable,
    502: Code.Unavailable,
    503: Code.Unavailable,
    504: Code.Unavailable,
  };
  return new StatusError(codes[status] ?? Code.Unknown, `unexpected HTTP status code received from server: ${status}`);
}

/** The value of `grpc-timeout`: at most eight digits and a unit. */
export function grpcTimeout(ms: number): string {
  const whole = Math.max(1, Math.ceil(ms));
  if (whole < 1e8) return `${whole}m`;
  return whole < 1e11 ? `${Math.ceil(whole / 1000)}S` : `${Math.min(99_999_999, Math.ceil(whole / 3_600_000))}H`;
}
