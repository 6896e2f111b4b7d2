// A call's outcome as gRPC carries it: trailers with a number, a percent-encoded message, and details as a google.rpc.Status.
import type { IncomingHttpHeaders } from 'node:http2';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, StatusError } from '@gantry/api';
import { StatusSchema } from '@gantry/api/gen/google/rpc/status_pb.js';
import { statusDetailsHeader } from './headers.ts';

/** The trailers of an error, or of success. */
export function statusTrailers(error: StatusError | undefined): Record<string, string> {
  if (!error) return { 'grpc-status': '0' };
  const trailers: Record<string, string> = { 'grpc-status': String(error.code) };
  const message = error.message.toWellFormed();
  if (message !== '') trailers['grpc-message'] = percentEncode(message);
  if (error.details.length > 0) {
    const status = create(StatusSchema, { code: error.code, message, details: [...error.details] });
    trailers[statusDetailsHeader] = Buffer.from(toBinary(StatusSchema, status)).toString('base64');
  }
  return trailers;
}

/** What the trailers say: undefined for success. Call only if they have `grpc-status`. */
export function statusOf(trailers: IncomingHttpHeaders): StatusError | undefined {
  const number = Number(trailers['grpc-status']);
  if (number === Code.Ok) return undefined;
  const code = (number in codes ? number : Code.Unknown) as Code;
  const message = percentDecode(String(trailers['grpc-message'] ?? ''));
  const binary = trailers[statusDetailsHeader];
  if (typeof binary !== 'string') return new StatusError(code, message);
  try {
    return new StatusError(code, message, {
      details: fromBinary(StatusSchema, Buffer.from(binary, 'base64')).details,
    });
  } catch (cause) {
    return new StatusError(code, message, { cause });
  }
}

const codes: Record<number, true> = Object.fromEntries(Object.values(Code).map((code) => [code, true]));

/** Printable ASCII stays as it is, `%` and every other byte of the UTF-8 becomes `%XX`. */
function percentEncode(text: string): string {
  if (/^[ -$&-~]*$/.test(text)) return text;
  let encoded = '';
  for (const byte of Buffer.from(text))
    encoded +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  return encoded;
}

/** What is not a valid escape stays as it is. */
function percentDecode(text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (run) => Buffer.from(run.replaceAll('%', ''), 'hex').toString());
}
