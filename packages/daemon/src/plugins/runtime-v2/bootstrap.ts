import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, unimplemented } from '@gantry/api';
import {
  BootstrapParamsSchema,
  BootstrapResultSchema,
  LogLevel,
} from '@gantry/api/gen/runtime/bootstrap/v1/bootstrap_pb.js';
import type { LogLevel as LevelName } from '../../core/log/logger.ts';

/** Where a shim listens and how to speak to it: what its `start` prints, and what `bootstrap.json` keeps. */
export interface Bootstrap {
  /** Version of the task API: 2 or 3. */
  version: number;
  /** `unix:///path`, or `vsock://`-like for others. */
  address: string;
  protocol: 'ttrpc' | 'grpc';
}

/** The highest version of the task API that is spoken here. */
const versionMax = 3;

/**
 * Reads what a shim's `start` printed: a BootstrapResult (containerd 2.3), JSON (1.7 to 2.2) or the bare address before that.
 * @throws StatusError InvalidArgument if it is none of these, Unimplemented for versions and protocols to come
 */
export function parseBootstrap(output: Uint8Array | string): Bootstrap {
  if (typeof output !== 'string' && isMessage(output)) {
    try {
      return checked(fromBinary(BootstrapResultSchema, output));
    } catch (cause) {
      if (cause instanceof Error && cause.name !== 'StatusError')
        throw invalidArgument('shim start printed bad bootstrap parameters', cause);
      throw cause;
    }
  }
  const text = (typeof output === 'string' ? output : Buffer.from(output).toString('utf8')).trim();
  if (!text.startsWith('{')) return checked({ version: 2, address: text, protocol: 'ttrpc' });
  let parsed: { version?: unknown; address?: unknown; protocol?: unknown };
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw invalidArgument(`shim start printed bad bootstrap parameters: ${text.slice(0, 200)}`, cause);
  }
  return checked({
    version: Number(parsed.version ?? 2),
    address: typeof parsed.address === 'string' ? parsed.address : '',
    protocol: String(parsed.protocol ?? 'ttrpc'),
  });
}

/** Whether it begins with the tag of one of the message's first fields: control characters, which no text begins with. */
function isMessage(output: Uint8Array): boolean {
  return [0x08, 0x12, 0x1a].includes(output[0] ?? -1);
}

function checked({ version, address, protocol }: { version: number; address: string; protocol: string }): Bootstrap {
  if (address === '') throw invalidArgument('shim start printed no address');
  if (version !== 2 && version !== versionMax)
    throw unimplemented(`unsupported shim version (${version}): not implemented`);
  const name = protocol.toLowerCase() || 'ttrpc';
  if (name !== 'ttrpc' && name !== 'grpc') throw unimplemented(`protocol not supported: "${protocol}"`);
  return { version, address, protocol: name };
}

/**
 * Where a sandbox's shim serves, as its controller tells: `ttrpc+unix:///path`, `grpc+unix:///path`, or without a protocol,
 * which is ttrpc.
 */
export function bootstrapAt(address: string, version: number): Bootstrap {
  const [, protocol = 'ttrpc', rest = ''] = /^(?:([a-z]+)\+)?(.*)$/s.exec(address) ?? [];
  return checked({ version: version || versionMax, address: rest, protocol });
}

export function formatBootstrap(bootstrap: Bootstrap): string {
  return JSON.stringify({ version: bootstrap.version, address: bootstrap.address, protocol: bootstrap.protocol });
}

/** What a starting shim is told on stdin, since containerd 2.3. Older shims are told the same by flags and environment. */
export interface StartParameters {
  id: string;
  namespace: string;
  logLevel: LevelName;
  version: string;
  address: string;
  ttrpcAddress: string;
  binary: string;
  /** '' for the shim's own choice. */
  socketDir: string;
  options: Any | undefined;
}

const levels: Record<LevelName, LogLevel> = {
  trace: LogLevel.TRACE,
  debug: LogLevel.DEBUG,
  info: LogLevel.INFO,
  warn: LogLevel.WARN,
  error: LogLevel.ERROR,
  fatal: LogLevel.FATAL,
  panic: LogLevel.PANIC,
};

/** A unix socket's path has at most 107 bytes, and a shim's socket is named by 64 digits. */
const socketDirMax = 107 - 1 - 64;

export function encodeStartParameters(parameters: StartParameters): Uint8Array {
  const { socketDir } = parameters;
  const message = create(BootstrapParamsSchema, {
    instanceId: parameters.id,
    namespace: parameters.namespace,
    logLevel: levels[parameters.logLevel],
    containerdVersion: parameters.version,
    containerdTtrpcAddress: parameters.ttrpcAddress,
    containerdGrpcAddress: parameters.address,
    containerdBinary: parameters.binary,
    extensions: parameters.options ? [{ value: parameters.options }] : [],
    ...(socketDir !== '' && Buffer.byteLength(socketDir) <= socketDirMax && { socketDir }),
  });
  return toBinary(BootstrapParamsSchema, message);
}
