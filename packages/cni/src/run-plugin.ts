import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import path from 'node:path';
import { type StatusError, unknown } from '@gantry/api';
import { parseJson, stringifyJson } from '@gantry/oci';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'VERSION';

export interface PluginCall {
  command: CniCommand;
  containerId: string;
  netns: string;
  interfaceName: string;
  /** `K=V;K=V`. */
  args: string;
  /** Where the programs are. */
  directories: readonly string[];
}

/** Runs one plugin with a configuration on its standard input. Answers what it printed, as JSON; undefined if nothing. */
export async function runPlugin(
  type: string,
  config: object,
  call: PluginCall,
  signal?: AbortSignal,
): Promise<unknown> {
  const program = await findPlugin(type, call.directories);
  const child = spawn(program, [], {
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(signal && { signal }),
    env: {
      PATH: process.env['PATH'],
      CNI_COMMAND: call.command,
      CNI_CONTAINERID: call.containerId,
      CNI_NETNS: call.netns,
      CNI_IFNAME: call.interfaceName,
      CNI_ARGS: call.args,
      CNI_PATH: call.directories.join(path.delimiter),
    },
  });
  const output: Buffer[] = [];
  const errors: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  // One that does not read its configuration ends, and says why.
  child.stdin.on('error', () => undefined);
  child.stdin.end(stringifyJson(config));
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exit, killed) => resolve(exit ?? (killed ? 128 : 1)));
  });
  const text = Buffer.concat(output).toString('utf8').trim();
  if (code !== 0) throw pluginError(type, text, Buffer.concat(errors).toString('utf8').trim(), code);
  if (text === '') return undefined;
  try {
    return parseJson(text);
  } catch (error) {
    throw unknown(`plugin type=${JSON.stringify(type)} printed what is no JSON: ${(error as Error).message}`);
  }
}

async function findPlugin(type: string, directories: readonly string[]): Promise<string> {
  for (const directory of directories) {
    const file = path.join(directory, type);
    try {
      await access(file, constants.X_OK);
      return file;
    } catch {
      // Perhaps in the next one.
    }
  }
  throw unknown(`failed to find plugin ${JSON.stringify(type)} in path [${directories.join(' ')}]`);
}

function pluginError(type: string, output: string, errors: string, code: number): StatusError {
  let reason = errors || `exit code ${code}`;
  try {
    const { msg, details } = parseJson<{ msg?: string; details?: string }>(output);
    if (msg) reason = details ? `${msg}; ${details}` : msg;
  } catch {
    // It did not say it in the way it should.
  }
  return unknown(`plugin type=${JSON.stringify(type)} failed: ${reason}`);
}
