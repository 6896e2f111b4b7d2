import { StatusError } from '@gantry/api';
import type { ProgramRunner } from '../../core/programs/program-runner.ts';
import { trustedProgram } from '../../core/trust/trusted-file.ts';

export interface CredentialProgram {
  /** An absolute path. */
  file: string;
  args: readonly string[];
  /** Laid over the daemon's own environment. */
  env: Readonly<Record<string, string>>;
  /** Milliseconds. */
  timeoutMs: number;
  programs: ProgramRunner;
}

const limit = 1 << 20;

/**
 * Runs a program that answers with secrets: what it prints on standard error is dropped, and what it prints on standard output
 * goes to the caller alone.
 */
export async function runCredentialProgram(
  program: CredentialProgram,
  args: readonly string[],
  input: string,
  signal?: AbortSignal,
): Promise<{ code: number; stdout: string }> {
  const { file, env, timeoutMs, programs } = program;
  try {
    const { code, stdout } = await programs.run({
      file: trustedProgram(file),
      args: [...program.args, ...args],
      env: { ...process.env, ...env },
      input: Buffer.from(input),
      timeoutMs,
      limit,
      signal,
    });
    return { code, stdout: stdout.bytes.toString('utf8') };
  } catch (error) {
    throw StatusError.wrap(error, file);
  }
}
