import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { Code, descriptorStoreVariable, fromTimestamp, StatusError, traced } from '@gantry/api';
import { DeleteResponseSchema } from '@gantry/api/gen/runtime/task/v2/shim_pb.js';
import { type RuntimeInfo, RuntimeInfoSchema } from '@gantry/api/gen/types/introspection_pb.js';
import type { LogLevel } from '../../core/log/logger.ts';
import type { ProcessExit } from '../../core/tasks/task-runtime.ts';
import { version } from '../../core/version/version.ts';
import { type Bootstrap, encodeStartParameters, parseBootstrap } from './bootstrap.ts';
import { type Bundle, shimBundle } from './bundle.ts';

/** What every shim process is told about the daemon. */
export interface ShimEnvironment {
  /** The daemon's gRPC and ttrpc sockets. */
  address: string;
  ttrpcAddress: string;
  /** A program whose `publish` sub-command forwards one event. */
  publishBinary: string;
  /** The daemon's own. */
  logLevel: LogLevel;
  /** `KEY=value` lines of the configuration. */
  extra: readonly string[];
  /** Directory for the shim's socket, '' for its own choice. */
  socketDir: string;
  /** Socket of the descriptor store, if there is one. */
  descriptorStore?: string;
}

interface Output {
  stdout: Buffer;
  stderr: string;
}

/**
 * Programs, by path, inode and time, that were found to read nothing but options on stdin, as that of containerd 1.6 does.
 * Which one a program is cannot be asked, so it is tried.
 */
const readsOptions = new Set<string>();

/** Starts (or finds) the shim for a bundle: the `start` action. The shim runs on after it. */
export function startShim(
  binary: string,
  bundle: Bundle,
  options: Any | undefined,
  environment: ShimEnvironment,
  timeoutMs: number,
): Promise<Bootstrap> {
  const attributes = { 'process.executable.path': binary, 'container.id': bundle.id };
  return traced('shim.start', { attributes }, () => launchShim(binary, bundle, options, environment, timeoutMs));
}

async function launchShim(
  binary: string,
  bundle: Bundle,
  options: Any | undefined,
  environment: ShimEnvironment,
  timeoutMs: number,
): Promise<Bootstrap> {
  const { ino, mtimeMs } = await stat(binary);
  const program = `${binary} ${ino} ${mtimeMs}`;
  const start = async (input: Uint8Array): Promise<Bootstrap> => {
    const args = [...commonArguments(bundle, environment), 'start'];
    const output = await runShim(binary, args, { bundle, environment, input, timeoutMs });
    return parseBootstrap(output.stdout);
  };
  const optionsOnly = options ? toBinary(AnySchema, options) : new Uint8Array();
  if (readsOptions.has(program)) return start(optionsOnly);
  try {
    return await start(parametersFor(bundle, options, environment));
  } catch (error) {
    // It took our first field, the id, for the type of its options. It has started nothing then.
    if (!(error instanceof Error && error.message.includes(`type with url ${bundle.id}: not found`))) throw error;
    readsOptions.add(program);
    return start(optionsOnly);
  }
}

function parametersFor(bundle: Bundle, options: Any | undefined, environment: ShimEnvironment): Uint8Array {
  return encodeStartParameters({
    id: bundle.id,
    namespace: bundle.namespace,
    logLevel: environment.logLevel,
    version: version.version,
    address: environment.address,
    ttrpcAddress: environment.ttrpcAddress,
    binary: environment.publishBinary,
    socketDir: environment.socketDir,
    options,
  });
}

/** Cleans up after a shim that is gone: the `delete` action. Answers how the container's process ended. */
export async function deleteByShim(
  binary: string,
  bundle: Bundle,
  environment: ShimEnvironment,
  timeoutMs: number,
): Promise<ProcessExit> {
  const output = await runShim(
    binary,
    [...commonArguments(bundle, environment), '-bundle', shimBundle(bundle), 'delete'],
    {
      bundle,
      environment,
      input: new Uint8Array(),
      timeoutMs,
    },
  );
  const response = fromBinary(DeleteResponseSchema, output.stdout);
  return { pid: response.pid, exitStatus: response.exitStatus, exitedAt: fromTimestamp(response.exitedAt) };
}

/** What a shim says of itself: the `-info` flag. */
export async function shimInfo(binary: string, options: Any | undefined, timeoutMs: number): Promise<RuntimeInfo> {
  const output = await run(binary, ['-info'], {
    environment: process.env,
    input: options ? toBinary(AnySchema, options) : new Uint8Array(),
    timeoutMs,
  });
  return fromBinary(RuntimeInfoSchema, output.stdout);
}

function commonArguments(bundle: Bundle, environment: ShimEnvironment): string[] {
  return [
    '-namespace',
    bundle.namespace,
    '-address',
    environment.address,
    '-publish-binary',
    environment.publishBinary,
    '-id',
    bundle.id,
    ...(['debug', 'trace'].includes(environment.logLevel) ? ['-debug'] : []),
  ];
}

function runShim(
  binary: string,
  args: string[],
  options: { bundle: Bundle; environment: ShimEnvironment; input: Uint8Array; timeoutMs: number },
): Promise<Output> {
  const { bundle, environment } = options;
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    // As containerd sets it, also where version 3 is spoken: shims that know that read the parameters on stdin.
    MAX_SHIM_VERSION: '2',
    GOMAXPROCS: '2',
    TTRPC_ADDRESS: environment.ttrpcAddress,
    GRPC_ADDRESS: environment.address,
    NAMESPACE: bundle.namespace,
    // By this a shim of ours knows that it has read everything: a daemon that is killed meanwhile leaves it with a part.
    GANTRY_SHIM_INPUT_BYTES: String(options.input.length),
    ...(environment.socketDir === '' ? {} : { GANTRY_SHIM_SOCKET_DIR: environment.socketDir }),
    ...(environment.descriptorStore && { [descriptorStoreVariable]: environment.descriptorStore }),
  };
  for (const line of environment.extra) {
    const at = line.indexOf('=');
    if (at > 0) env[line.slice(0, at)] = line.slice(at + 1);
  }
  return run(binary, args, {
    environment: env,
    input: options.input,
    timeoutMs: options.timeoutMs,
    cwd: shimBundle(bundle),
  });
}

/** Runs a program to its end. @throws StatusError Unknown with what it printed, DeadlineExceeded past the time. */
function run(
  binary: string,
  args: string[],
  options: { environment: NodeJS.ProcessEnv; input: Uint8Array; timeoutMs: number; cwd?: string },
): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = spawn(binary, args, {
      env: options.environment,
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, options.timeoutMs);
    let ended = false;
    const finish = (code: number | null, signal: NodeJS.Signals | null): void => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      // The shim that stays may have kept the pipes open: what was printed until the starter ended is all that counts.
      child.stdout.destroy();
      child.stderr.destroy();
      const text = Buffer.concat(stderr).toString('utf8').trim();
      if (late)
        reject(
          new StatusError(Code.DeadlineExceeded, `${binary} ${args.at(-1)}: no answer in ${options.timeoutMs} ms`),
        );
      else if (code === 0) resolve({ stdout: Buffer.concat(stdout), stderr: text });
      else {
        const how = code === null ? `signal: ${signal}` : `exit status ${code}`;
        reject(new StatusError(Code.Unknown, text === '' ? how : `${text}: ${how}`));
      }
    };
    child.on('error', (cause) => {
      clearTimeout(timer);
      if (!ended) reject(new StatusError(Code.Unknown, `cannot run ${binary}: ${cause.message}`, { cause }));
      ended = true;
    });
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.on('close', finish);
    // `close` waits for the pipes' end, which a shim that inherited them would put off for as long as it lives.
    child.on('exit', (code, signal) => setTimeout(finish, 200, code, signal));
    // A shim that ends without reading its input is no error of the write.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input);
  });
}
