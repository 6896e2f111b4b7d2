import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { StatusError, unknown } from '@gantry/api';
import type { Descriptor } from '@gantry/oci';
import type { Logger } from '../../core/log/logger.ts';
import { formatDuration } from '../../core/plugin/duration.ts';
import type { ProgramRunner } from '../../core/programs/program-runner.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { trustedProgram } from '../../core/trust/trusted-file.ts';
import type { ImageVerifier, Judgement } from '../../core/verification/image-verifier.ts';
import { descriptorJson } from './descriptor-json.ts';

export interface BindirOptions {
  binDir: string;
  /** Below 0: no limit. */
  maxVerifiers: number;
  /** Milliseconds. */
  timeoutMs: number;
  programs: ProgramRunner;
  log: Logger;
}

const outputLimit = 32 << 10;
const descriptorType = 'application/vnd.oci.descriptor.v1+json';

/** Runs the programs of a directory, each of which has to end with 0: containerd's docs/image-verification.md. */
export class BindirVerifier implements ImageVerifier {
  readonly #options: BindirOptions;

  constructor(options: BindirOptions) {
    this.#options = options;
  }

  async verifyImage(ctx: RequestContext, name: string, descriptor: Descriptor): Promise<Judgement> {
    const { binDir, maxVerifiers, log } = this.#options;
    let programs: Buffer[];
    try {
      programs = (await readdir(binDir, { encoding: 'buffer' })).sort(Buffer.compare);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        throw StatusError.wrap(error, 'failed to list directory contents');
      }
      return { ok: true, reason: `image verifier directory ${binDir} does not exist` };
    }
    if (programs.length === 0) return { ok: true, reason: `no image verifier binaries found in ${binDir}` };
    if (maxVerifiers >= 0 && programs.length > maxVerifiers) {
      log.warn(
        `image verifiers are being skipped since directory ${binDir} has ${programs.length} entries, more than configured max of ${maxVerifiers} verifiers`,
      );
      programs.length = maxVerifiers;
    }
    const reasons: string[] = [];
    for (const program of programs.map(String)) {
      const started = performance.now();
      let answer: { code: number; reason: string };
      try {
        answer = await this.#run(program, name, descriptor, ctx.signal);
      } catch (error) {
        const runtime = formatDuration(performance.now() - started);
        throw StatusError.wrap(error, `failed to call verifier ${program} (runtime ${runtime})`);
      }
      const { code, reason } = answer;
      if (code !== 0) {
        return { ok: false, reason: `verifier ${program} rejected image (exit code ${code}): ${reason}` };
      }
      reasons.push(`${program} => ${reason}`);
    }
    return { ok: true, reason: reasons.join(', ') };
  }

  async #run(
    program: string,
    name: string,
    descriptor: Descriptor,
    signal: AbortSignal | undefined,
  ): Promise<{ code: number; reason: string }> {
    const { binDir, timeoutMs, programs } = this.#options;
    const file = path.join(binDir, program);
    mustBeStartable(file);
    const log = this.#options.log.with({ image_verifier: program, stream: 'stderr' });
    const { code, stdout } = await programs.run({
      file,
      args: ['-name', name, '-digest', descriptor.digest, '-stdin-media-type', descriptorType],
      input: Buffer.from(`${descriptorJson(descriptor)}\n`),
      timeoutMs,
      limit: outputLimit,
      onErrorLine: (line) => log.debug(line),
      signal,
    });
    const reason = stdout.bytes.toString('utf8').trim() + (stdout.truncated ? '(stdout truncated)' : '');
    return { code, reason };
  }
}

/** What is no program that root alone can change is not run, and blocks as any other that cannot be started. */
function mustBeStartable(file: string): void {
  try {
    trustedProgram(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason = { ENOENT: 'no such file or directory', EACCES: 'permission denied' }[code ?? ''];
    if (reason !== undefined) throw unknown(`starting process: fork/exec ${file}: ${reason}`, error);
    throw StatusError.wrap(error, 'starting process');
  }
}
