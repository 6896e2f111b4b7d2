import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { failedPrecondition } from '@gantry/api';
import { runProgram } from '@gantry/daemon/core/programs/run-program.ts';

/** Of 3.16, the first that freezes containers of pods. */
const leastVersion = 31_600;

/** @throws FailedPrecondition if there is no CRIU that could be used */
export async function requireCriu(enabled: boolean): Promise<void> {
  if (!enabled) throw failedPrecondition('criu support is disabled by configuration');
  const file = (process.env['PATH'] ?? '')
    .split(':')
    .map((folder) => path.join(folder, 'criu'))
    .find(isProgram);
  if (!file) throw failedPrecondition('criu binary not found in shim path or system PATH');
  const { stdout } = await runProgram({ file, args: ['--version'], timeoutMs: 10_000, limit: 4096 });
  const version = criuVersion(stdout.bytes.toString('utf8'));
  if (version === undefined) throw failedPrecondition(`failed to get CRIU version: ${file} does not tell it`);
  if (version < leastVersion) {
    throw failedPrecondition(
      `checkpoint/restore requires at least CRIU ${leastVersion}, current version is ${version}`,
    );
  }
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return path.isAbsolute(file);
  } catch {
    return false;
  }
}

/** 4.1.1 is 40101. undefined for text of another program. */
export function criuVersion(text: string): number | undefined {
  const match = /^Version: (\d+)\.(\d+)(?:\.(\d+))?/m.exec(text);
  if (!match) return undefined;
  const [major = 0, minor = 0, patch = 0] = match.slice(1).map((part) => Number(part ?? 0));
  return major * 10_000 + minor * 100 + patch;
}
