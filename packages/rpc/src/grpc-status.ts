import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, StatusError } from '@gantry/api';
import { StatusSchema } from '@gantry/api/gen/google/rpc/status_pb.js';
import { Metadata, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { statusDetailsHeader } from './headers.ts';

/** What grpc-js sends for an error: code, message, and the details as a serialised google.rpc.Status. */
export function toGrpcStatus(error: StatusError): StatusObject {
  const metadata = new Metadata();
  // A lone surrogate cannot be percent-encoded, and would make the transport throw.
  const details = error.message.toWellFormed();
  if (error.details.length > 0) {
    const status = create(StatusSchema, { code: error.code, message: details, details: [...error.details] });
    metadata.set(statusDetailsHeader, Buffer.from(toBinary(StatusSchema, status)));
  }
  return { code: error.code as number, details, metadata };
}

/** The StatusError in what grpc-js gives a client. */
export function fromGrpcStatus(status: Pick<ServiceError, 'code' | 'details' | 'metadata'>): StatusError {
  const binary = status.metadata?.get(statusDetailsHeader)[0];
  const code = (status.code in codeNames ? status.code : Code.Unknown) as Code;
  if (!(binary instanceof Buffer)) return new StatusError(code, status.details);
  try {
    return new StatusError(code, status.details, { details: fromBinary(StatusSchema, binary).details });
  } catch (cause) {
    return new StatusError(code, status.details, { cause });
  }
}

const codeNames: Record<number, true> = Object.fromEntries(Object.values(Code).map((code) => [code, true]));
