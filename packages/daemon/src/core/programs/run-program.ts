import { canceled, unknown } from '@gantry/api';
import { type Output, type RunOptions, type RunResult, runChild, SysError, signalWord } from '@gantry/sys';

/** Runs helper programs that answer a question and end: image verifiers, credential helpers. */

export type ProgramOptions = Omit<RunOptions, 'sparesGroup' | 'onStart'>;

export interface ProgramResult {
  /** How it ended by itself. */
  code: number;
  stdout: Output;
}

/**
 * Runs a program in a process group of its own, with no descriptor but its standard ones, until it has ended and nobody holds
 * its output open; then whatever is left of the group is killed. `onStart` is told its number.
 * @throws StatusError Unknown `starting process: …` if it cannot be started, `waiting on command to exit: …` if it was killed or
 * took too long; Canceled with the signal
 */
export async function runProgram(options: ProgramOptions, onStart?: (pid: number) => void): Promise<ProgramResult> {
  let result: RunResult;
  try {
    result = await runChild({ ...options, onStart });
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const reason = error.message.slice(error.message.lastIndexOf(': ') + 2);
    throw unknown(`starting process: fork/exec ${options.file}: ${reason}`, error);
  }
  const { exit, late, stdout } = result;
  if (options.signal?.aborted) throw canceled('context canceled', options.signal.reason);
  if (exit.signal !== undefined) throw unknown(`waiting on command to exit: signal: ${signalWord(exit.signal)}`);
  if (late) throw unknown('waiting on command to exit: context deadline exceeded');
  return { code: exit.exitStatus, stdout };
}
