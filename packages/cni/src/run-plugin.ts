import { stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Code, StatusError, unknown } from '@gantry/api';
import { encodeJson, parseJson } from '@gantry/oci';
import { hasErrno, type RunResult, runChild, signalWord } from '@gantry/sys';
import { orphanMs, orphansGone } from './orphans.ts';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** What a plugin is told in its environment. */
export interface PluginCall {
  command: CniCommand;
  containerId?: string;
  netns?: string;
  interfaceName?: string;
  /** `K=V;K=V`. */
  args?: string;
  /** Where the programs are. */
  directories: readonly string[];
  /** Milliseconds it may take; then it is killed with the programs it calls. */
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

const usualTimeoutMs = 240_000;
const mostOutput = 4 << 20;

/** How often a program that is just being written is tried again, a second apart. */
const busyTries = 5;

/** Codes of the specification that mean: not now. */
const laterCodes = [11, 50, 51];

/**
 * Runs one plugin with a configuration on its standard input. Answers what it printed.
 * @throws StatusError Unknown with the plugin's own `msg; details` (Unavailable for those that mean "not now"), or saying how it
 * failed to say that; DeadlineExceeded if it took too long; Canceled with the signal
 */
export async function runPlugin(type: string, config: object, call: PluginCall): Promise<string> {
  const file = await findPlugin(type, call.directories);
  const { command, containerId = '', netns = '', interfaceName = '', args = '', directories, signal } = call;
  const timeoutMs = call.timeoutMs ?? usualTimeoutMs;
  const errors: string[] = [];
  const started = () =>
    runChild({
      file,
      input: encodeJson(config),
      env: {
        ...process.env,
        CNI_COMMAND: command,
        CNI_CONTAINERID: containerId,
        CNI_NETNS: netns,
        CNI_IFNAME: interfaceName,
        CNI_ARGS: args,
        CNI_PATH: directories.join(path.delimiter),
      },
      timeoutMs,
      limit: mostOutput,
      onErrorLine: (line) => errors.push(line),
      signal,
      // Some leave a program behind, which serves what they made.
      sparesGroup: true,
    });
  const { exit, late, stdout } = await tryWhileBusy(file, started);
  // What a program that it had called still does, the DEL that follows would not undo: an address given after it stays given.
  if (exit.signal !== undefined && containerId !== '') await orphansGone(containerId, orphanMs);
  if (signal?.aborted) throw ended(signal.reason, type, command);
  if (late) {
    throw new StatusError(Code.DeadlineExceeded, `${command} took more than ${timeoutMs / 1000} s: killed`);
  }
  const text = stdout.bytes.toString('utf8');
  if (exit.signal !== undefined || exit.exitStatus !== 0) {
    const how = exit.signal === undefined ? `exit status ${exit.exitStatus}` : `signal: ${signalWord(exit.signal)}`;
    throw pluginError(text, errors.join('\n'), how);
  }
  if (stdout.truncated) throw unknown(`it printed more than ${mostOutput} bytes`);
  return text;
}

async function tryWhileBusy(file: string, run: () => Promise<RunResult>): Promise<RunResult> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await run();
    } catch (error) {
      if (hasErrno(error, 'ETXTBSY') && tries < busyTries) await sleep(1000);
      else if (StatusError.from(error).code === Code.Unknown)
        throw unknown(`fork/exec ${file}: ${(error as Error).message}`, error);
      else throw error;
    }
  }
}

/** What a caller who gave up hears. */
function ended(reason: unknown, type: string, command: string): StatusError {
  const { code } = StatusError.from(reason);
  const late = code === Code.DeadlineExceeded;
  return new StatusError(
    late ? code : Code.Canceled,
    `${command} of plugin ${JSON.stringify(type)} was ended: context ${late ? 'deadline exceeded' : 'canceled'}`,
    { cause: reason },
  );
}

async function findPlugin(type: string, directories: readonly string[]): Promise<string> {
  if (type.includes('/') || type.includes('\0')) throw unknown(`invalid plugin name: ${type}`);
  for (const directory of directories) {
    const file = path.join(directory, type);
    try {
      if ((await stat(file)).isFile()) return file;
    } catch {
      // Perhaps in the next one.
    }
  }
  throw unknown(`failed to find plugin ${JSON.stringify(type)} in path [${directories.join(' ')}]`);
}

function pluginError(output: string, errors: string, how: string): StatusError {
  if (output === '') {
    if (errors === '') return unknown(`netplugin failed with no error message: ${how}`);
    return unknown(`netplugin failed: ${JSON.stringify(errors)}`);
  }
  let said: { code?: unknown; msg?: unknown; details?: unknown } | null;
  try {
    said = parseJson(output);
  } catch (error) {
    const { message } = error as Error;
    return unknown(
      `netplugin failed but error parsing its diagnostic message ${JSON.stringify(output.slice(0, 4096))}: ${message}`,
    );
  }
  const { code, msg, details } = said ?? {};
  const text = [msg, details].filter((part) => typeof part === 'string' && part !== '').join('; ');
  const message = text || `netplugin failed with no error message: ${how}`;
  return new StatusError(laterCodes.includes(Number(code)) ? Code.Unavailable : Code.Unknown, message);
}
