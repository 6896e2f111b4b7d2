import { bytesField, readFields, stringField, writeField } from './wire.ts';

/**
 * What a daemon tells a shim at start and how it wants to be answered. Three generations exist: containerd 1.6 gives the
 * runtime options on stdin and reads an address line; 1.7 to 2.2 also set MAX_SHIM_VERSION and read JSON; 2.3 gives
 * BootstrapParams on stdin and reads a BootstrapResult (and still sets MAX_SHIM_VERSION=2 for older shims).
 */
export interface StartParameters {
  namespace: string;
  ttrpcAddress: string;
  grpcAddress: string;
  /** Where the daemon wants the shim's sockets, if it said so. */
  socketDir: string;
  /** The runtime options as `<type url>\n<bytes in base64>`, or '' if there are none: only compared, never read. */
  optionsKey: string;
  /** How the caller wants to be answered. */
  answer: 'address' | 'json' | 'protobuf';
  /** The highest version of the task API that may be answered. */
  maxVersion: number;
}

/** Where the shim serves. */
export interface BootstrapResult {
  version: number;
  address: string;
  protocol: 'ttrpc';
}

/** Reads what containerd of any generation gives to `start`. Never throws: what is not there stays empty. */
export function readStartParameters(
  stdin: Buffer,
  flags: { id: string; namespace: string; address: string; socket: string },
  env: Record<string, string | undefined>,
): StartParameters {
  const parameters: StartParameters = {
    namespace: flags.namespace || env['NAMESPACE'] || '',
    ttrpcAddress: env['TTRPC_ADDRESS'] ?? '',
    grpcAddress: flags.address || env['GRPC_ADDRESS'] || '',
    socketDir: flags.socket,
    optionsKey: '',
    answer: 'address',
    maxVersion: 2,
  };
  const max = Number.parseInt(env['MAX_SHIM_VERSION'] ?? '', 10);
  if (max >= 2) {
    parameters.answer = 'json';
    parameters.maxVersion = Math.min(3, max);
  }
  const fields = stdin.length > 0 ? readFields(stdin) : undefined;
  if (!fields) return parameters;
  // Both messages begin with a string. Only BootstrapParams has our own id there; an Any has a type URL.
  if (flags.id === '' || stringField(fields, 1) !== flags.id) {
    parameters.optionsKey = anyKey(fields);
    return parameters;
  }
  parameters.answer = 'protobuf';
  parameters.maxVersion = 3;
  parameters.namespace ||= stringField(fields, 2);
  parameters.ttrpcAddress ||= stringField(fields, 5);
  parameters.grpcAddress ||= stringField(fields, 6);
  parameters.socketDir ||= stringField(fields, 9);
  parameters.optionsKey = fields
    .filter((field) => field.number === 8 && Buffer.isBuffer(field.value))
    .map((field) => {
      const extension = readFields(field.value as Buffer) ?? [];
      return anyKey(readFields(bytesField(extension, 1) ?? Buffer.alloc(0)) ?? []);
    })
    .join('\n');
  return parameters;
}

function anyKey(fields: NonNullable<ReturnType<typeof readFields>>): string {
  const typeUrl = stringField(fields, 1);
  const value = bytesField(fields, 2);
  return typeUrl === '' && !value ? '' : `${typeUrl}\n${value?.toString('base64') ?? ''}`;
}

/** The answer in the form the caller reads. */
export function writeBootstrapResult(result: BootstrapResult, answer: StartParameters['answer']): Buffer {
  switch (answer) {
    case 'address':
      return Buffer.from(result.address);
    case 'json':
      return Buffer.from(JSON.stringify(result));
    case 'protobuf':
      return Buffer.concat([
        writeField(1, result.version),
        writeField(2, result.address),
        writeField(3, result.protocol),
      ]);
  }
}
